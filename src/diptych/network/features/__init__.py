"""Plans of the feature networks, for both backends: named convolutions and file layouts."""
