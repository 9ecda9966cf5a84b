"""Property tests: the same examples in every run, and no deadline on a busy machine."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

settings.register_profile("diptych", deadline=None, derandomize=True)
settings.load_profile("diptych")

__all__ = ["given", "settings", "st"]
