"""Readers of pickled weights that execute none of the file's code."""
