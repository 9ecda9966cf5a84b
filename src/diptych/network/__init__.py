"""The U-Net as a plan, its weights by name, and the feature networks' plans; no framework."""
