"""Gaussian data, for which the optimal denoiser and its whole trajectory are known.

x0 ~ N(0, S^2)    =>    x_t ~ N(0, v_t),   v_t = alpha^2 S^2 + sigma^2
E[eps | x_t] = sigma / v_t * x_t,      and without noise x_t / sqrt(v_t) is constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import CLEAN, Level, make_schedule, make_spacing
from diptych.sampling.solvers import Step

S = 0.5
# Fine enough that 320 steps are still a subset, and as noisy at the end as the published 1,000.
SCHEDULE = make_schedule(
    DiffusionConfig(timesteps=16_000, beta_start=1e-4 / 16, beta_end=0.02 / 16)
)


def variance(level: Level) -> float:
    """The variance v_t of x_t."""
    return level.alpha**2 * S**2 + level.sigma**2


def denoise(x: Any, level: Level) -> Any:
    """The exact expectation of the noise."""
    return (level.sigma / variance(level)) * x


def levels(steps: int, spacing: str = "trailing") -> list[Level]:
    """Levels from noisy to clean; `trailing` starts at the same level for every `steps`."""
    chosen = make_spacing(spacing, steps, SCHEDULE.timesteps)[::-1]
    return [SCHEDULE.level(t) for t in chosen] + [CLEAN]


def trajectory_error(solver: Any, steps: int) -> float:
    """Relative distance of the solver's result from the exact one, without noise."""
    path = levels(steps)
    x: Any = np.array([1.0])
    for now, after in pairwise(path):
        x = solver.step(Step(x, denoise, now, after))
    exact = math.sqrt(variance(path[-1]) / variance(path[0]))
    return abs(float(x[0]) / exact - 1)


def orders(errors: Sequence[float]) -> list[float]:
    """Observed orders of convergence; each error has twice the steps of the one before."""
    return [math.log2(a / b) for a, b in pairwise(errors)]
