"""Readers for the file formats of image data sets."""
