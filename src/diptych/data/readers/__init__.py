"""Readers of the file formats that image data sets come in."""
