"""PNDM: PLMS with fourth-order Runge-Kutta for the first three steps.

    e1 at x;  e2 and e3 at the middle of the step;  e4 at its end
    eps' = (e1 + 2 e2 + 2 e3 + e4) / 6

Twelve network calls for the first three steps, then one each: S + 9 in total. The middle of a step
is the timestep halfway, rounded up, so the solver needs the schedule's levels.

Source: Liu et al. 2022, arXiv:2202.09778, equation 11 and algorithm 2 (F-PNDM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.plms import extrapolated
from diptych.sampling.solvers.solver import Solver, Step, flow
from diptych.types import A

START = 3  # steps before four predictions are available


@dataclass(frozen=True)
class Pndm(Solver):
    """Linear multistep with a Runge-Kutta start; `level` gives the level of a timestep."""

    level: Callable[[int], Level]
    needs = Needs(steps=START + 1, equal=True)

    def calls(self, steps: int) -> int:
        """Four network calls in each of the first three steps, then one."""
        return steps + 3 * min(START, steps)

    def step(self, s: Step[A]) -> A:
        """As `Solver.step`. Raises ValueError if one of the first three ends on a clean image."""
        x, denoise, now, after = s.x, s.denoise, s.now, s.after
        e1 = denoise(x, now)
        starting = len(s.memory.past) < START
        s.memory.remember(now, e1, keep=4)
        if not starting:
            return flow(x, extrapolated(s.memory), now, after)  # type: ignore[no-any-return]
        if after.sigma == 0.0:
            raise ValueError("PNDM needs four steps or more: no noise can be predicted at the end")
        middle = self.level(now.t - (now.t - after.t) // 2)
        e2 = denoise(flow(x, e1, now, middle), middle)
        e3 = denoise(flow(x, e2, now, middle), middle)
        e4 = denoise(flow(x, e3, now, after), after)
        mean = (1 / 6) * e1 + (1 / 3) * e2 + (1 / 3) * e3 + (1 / 6) * e4
        return flow(x, mean, now, after)
