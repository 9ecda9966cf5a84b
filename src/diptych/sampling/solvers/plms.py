"""PLMS: the straight move of DDIM with eps extrapolated from up to four past predictions.

    eps' = (55 e0 - 59 e1 + 37 e2 - 9 e3) / 24          Adams-Bashforth, equal steps
    x'   = (alpha' / alpha) x + (sigma' - alpha' / alpha sigma) eps'

The first step takes a second prediction at its far end and the mean of both, steps two and three
use the lower-order weights: S + 1 network calls in total. The weights assume steps of equal length,
so the spacing must provide them. With equal steps in t the order is 2 (the move is not linear in
t); with equal steps in sigma / alpha it is 3, the order of the start.

Source: Liu et al. 2022 (PNDM), arXiv:2202.09778, equations 12 and 13, with the start of the latent
diffusion code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.solver import Memory, Solver, Step, flow
from diptych.types import A

# Newest first: the weights for 1, 2, 3 and 4 predictions at hand.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@dataclass(frozen=True)
class Plms(Solver):
    """Linear multistep, started by one step of two network calls."""

    needs = Needs(steps=2, equal=True)

    def calls(self, steps: int) -> int:
        """One network call per step, and one more in the first."""
        return steps + 1

    def step(self, s: Step[A]) -> A:
        x, now, after = s.x, s.now, s.after
        eps = s.denoise(x, now)
        s.memory.remember(now, eps, keep=4)
        if len(s.memory.past) == 1 and after.sigma > 0:
            there = s.denoise(flow(x, eps, now, after), after)
            return flow(x, 0.5 * eps + 0.5 * there, now, after)
        return flow(x, extrapolated(s.memory), now, after)  # type: ignore[no-any-return]


def extrapolated(memory: Memory) -> Any:
    """The mean eps of the coming step, from the stored predictions."""
    newest_first = [eps for _, eps in reversed(memory.past)]
    weights = ADAMS_BASHFORTH[len(newest_first) - 1]
    total = weights[0] * newest_first[0]
    for weight, eps in zip(weights[1:], newest_first[1:], strict=True):
        total = total + weight * eps
    return total
