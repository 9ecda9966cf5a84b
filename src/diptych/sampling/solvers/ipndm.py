"""iPNDM: the straight move of DDIM with eps extrapolated from up to four past predictions.

    eps' = (55 e0 - 59 e1 + 37 e2 - 9 e3) / 24          Adams-Bashforth, newest first
    x'   = (alpha' / alpha) x + (sigma' - alpha' / alpha sigma) eps'

PLMS without its second call at the start: the first steps have the orders 1, 2 and 3. So a
trajectory takes S calls, from one step on. The weights are those of equal steps in sigma / alpha,
but any steps are taken, as its authors do: the error on unequal ones is of first order, and with
few calls smaller than that of rules whose weights follow the steps.

Source: Zhang and Chen 2023, arXiv:2204.13902, appendix H (iPNDM).
"""

from __future__ import annotations

from dataclasses import dataclass

from diptych.sampling.solvers.checks import check_order
from diptych.sampling.solvers.plms import extrapolated
from diptych.sampling.solvers.solver import Solver, Step, flow
from diptych.types import A


@dataclass(frozen=True)
class Ipndm(Solver):
    """Deterministic, linear multistep of order 1 (which is DDIM) to 4; one network call a step."""

    order: int = 4

    def __post_init__(self) -> None:
        check_order("Ipndm", self.order, 4)

    def step(self, s: Step[A]) -> A:
        s.memory.remember(s.now, s.denoise(s.x, s.now), keep=self.order)
        return flow(s.x, extrapolated(s.memory), s.now, s.after)  # type: ignore[no-any-return]
