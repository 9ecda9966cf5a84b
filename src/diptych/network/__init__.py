"""Plans of the U-Net and of the feature networks, and weights by name; no framework code."""
