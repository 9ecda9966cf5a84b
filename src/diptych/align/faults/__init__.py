"""Planted faults: changes to one running backend that the ladder must catch."""
