"""Samplers: one update rule a file, one driver loop for all (`diptych.sampler`)."""

from __future__ import annotations

from diptych.solvers.ddim import Ddim

__all__ = ["Ddim"]
