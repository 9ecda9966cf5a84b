"""Heun's method: an Euler step, then the same step with the mean of the slopes at both its ends.

    y1 = y + (s' - s) eps(y, s)
    y' = y + (s' - s) (eps(y, s) + eps(y1, s')) / 2          y = x / alpha,  s = sigma / alpha

Second order, two network calls a step; but one in the last, where s' = 0 and there is no noise to
be predicted: 2 S - 1 in all. Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.solver import Memory, flow
from diptych.types import A


@dataclass(frozen=True)
class Heun:
    """Second order, deterministic, two network calls a step."""

    needs: ClassVar[Needs] = Needs()

    def calls(self, steps: int) -> int:
        """Two network calls a step, one in the last."""
        return 2 * steps - 1

    def noise_scale(self, now: Level, after: Level) -> float:
        """No noise is added."""
        return 0.0

    def step(
        self,
        x: A,
        denoise: Callable[[A, Level], A],
        now: Level,
        after: Level,
        noise: A | None = None,
        memory: Memory | None = None,
    ) -> A:
        """Images at level `after` from images at level `now`; as `Solver.step`."""
        here = denoise(x, now)
        moved = flow(x, here, now, after)
        if after.sigma == 0.0:
            return moved
        there = denoise(moved, after)
        return flow(x, 0.5 * here + 0.5 * there, now, after)
