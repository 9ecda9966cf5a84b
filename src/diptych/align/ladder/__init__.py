"""The ladder: its rungs, floors, tolerances and judge."""
