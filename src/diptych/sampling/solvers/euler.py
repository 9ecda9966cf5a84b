"""Euler's method on the probability flow, in the variables in which its slope is eps itself.

    y = x / alpha,   s = sigma / alpha:      dy/ds = eps,      y' = y + (s' - s) eps

So it is DDIM at eta 0, written as Karras et al. 2022 (arXiv:2206.00364, algorithm 1 without churn)
write it: the two differ by rounding alone. It is here because users ask for it by this name.
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
class Euler:
    """First order, deterministic."""

    needs: ClassVar[Needs] = Needs()

    def calls(self, steps: int) -> int:
        """One network call a step."""
        return steps

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
        return flow(x, denoise(x, now), now, after)
