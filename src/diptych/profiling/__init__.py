"""Profiles of a training step's time and memory, in either backend."""

from diptych.profiling.split import PHASES, profile
from diptych.profiling.table import render

__all__ = ["PHASES", "profile", "render"]
