"""Where a training step's time goes, and what memory it holds, in either panel."""

from diptych.profiling.split import PHASES, profile
from diptych.profiling.table import render

__all__ = ["PHASES", "profile", "render"]
