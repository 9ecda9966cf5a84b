"""The plans of the feature networks, for both panels: convolutions by name, and files' layouts."""
