"""Pickled weights read as data, without executing any code in them."""
