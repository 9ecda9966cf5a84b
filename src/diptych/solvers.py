"""The solvers under their public address: `diptych.solvers.Heun()` and its like."""

from __future__ import annotations

from diptych.sampling.solvers import *  # noqa: F403
from diptych.sampling.solvers import __all__ as __all__
