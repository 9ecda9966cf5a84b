"""Heun's method: an Euler step, then the same step with the mean of the slopes at both its ends.

    y1 = y + (s' - s) eps(y, s)
    y' = y + (s' - s) (eps(y, s) + eps(y1, s')) / 2          y = x / alpha,  s = sigma / alpha

Second order, two network calls per step, but one in the last, where s' = 0 and no noise remains to
predict: 2 S - 1 in total. Source: Karras et al. 2022, arXiv:2206.00364, algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.sampling.solvers.solver import Solver, Step, flow
from diptych.types import A


@dataclass(frozen=True)
class Heun(Solver):
    """Second order, deterministic, two network calls a step."""

    def calls(self, steps: int) -> int:
        """Two network calls a step, one in the last."""
        return 2 * steps - 1

    def step(self, s: Step[A]) -> A:
        here = s.denoise(s.x, s.now)
        moved = flow(s.x, here, s.now, s.after)
        if s.after.sigma == 0.0:
            return moved
        there = s.denoise(moved, s.after)
        return flow(s.x, 0.5 * here + 0.5 * there, s.now, s.after)
