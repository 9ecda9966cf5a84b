"""Settings of a run: typed, checked, and the same for both backends."""
