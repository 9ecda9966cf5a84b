"""Euler's method on the probability flow, in the variables in which its slope is eps itself.

    y = x / alpha,   s = sigma / alpha:      dy/ds = eps,      y' = y + (s' - s) eps

So it is DDIM at eta 0, written as Karras et al. 2022 (arXiv:2206.00364, algorithm 1 without churn)
write it: the two only differ by rounding. It exists because users ask for it by this name.
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.sampling.solvers.solver import Solver, Step, flow
from diptych.types import A


@dataclass(frozen=True)
class Euler(Solver):
    """First order, deterministic, one network call a step."""

    def step(self, s: Step[A]) -> A:
        return flow(s.x, s.denoise(s.x, s.now), s.now, s.after)
