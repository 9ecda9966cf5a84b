"""The ladder for a user's own port: weights matched by name, layers, loss, gradients."""
