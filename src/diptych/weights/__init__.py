"""Weights of every supported format: found, inspected and converted."""
