"""PNDM: as PLMS, but its first three steps are of Runge and Kutta's fourth order.

    e1 at x;  e2 and e3 at the middle of the step;  e4 at its end
    eps' = (e1 + 2 e2 + 2 e3 + e4) / 6

Twelve network calls for the first three steps, then one each: S + 9 in all. The middle of a step
is the timestep halfway, rounded up, so the solver must be told the schedule's levels.

Source: Liu et al. 2022, arXiv:2202.09778, equation 11 and algorithm 2 (F-PNDM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.plms import extrapolated
from diptych.sampling.solvers.solver import Memory, flow
from diptych.types import A

START = 3  # steps before four predictions are at hand


@dataclass(frozen=True)
class Pndm:
    """Linear multistep with a Runge-Kutta start; `level` gives the level of a timestep."""

    level: Callable[[int], Level]
    needs: ClassVar[Needs] = Needs(steps=START + 1, equal=True)

    def calls(self, steps: int) -> int:
        """Four network calls in each of the first three steps, then one."""
        return steps + 3 * min(START, steps)

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
        """Images at level `after` from images at level `now`; as `Solver.step`.

        Raises:
            ValueError: one of the first three steps ends on the clean image.
        """
        memory = memory or Memory(1)
        e1 = denoise(x, now)
        starting = len(memory.past) < START
        memory.remember(now, e1, keep=4)
        if not starting:
            return flow(x, extrapolated(memory), now, after)  # type: ignore[no-any-return]
        if after.sigma == 0.0:
            raise ValueError("PNDM needs four steps or more: no noise can be predicted at the end")
        middle = self.level(now.t - (now.t - after.t) // 2)
        e2 = denoise(flow(x, e1, now, middle), middle)
        e3 = denoise(flow(x, e2, now, middle), middle)
        e4 = denoise(flow(x, e3, now, after), after)
        mean = (1 / 6) * e1 + (1 / 3) * e2 + (1 / 3) * e3 + (1 / 6) * e4
        return flow(x, mean, now, after)
