"""Packed data: a source decoded and cropped once, written to one memory-mapped file."""
