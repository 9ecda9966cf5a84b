"""Published update rules in their authors' notation, as references for ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.diffusion.process import x0_from_eps
from diptych.diffusion.schedule import Level
from diptych.sampling.solvers import DpmSolverPP, Memory
from diptych.sampling.solvers.dpmpp import order_of
from diptych.sampling.solvers.solver import half_log_snr


@dataclass(frozen=True)
class Published3M:
    """DPM-Solver++ 3M as in the authors' code and in diffusers.

    `curvature` 1 is theirs; 2 gives the second difference its full weight, like ours.
    """

    curvature: float = 1.0

    def calls(self, steps: int) -> int:
        return steps

    def noise_scale(self, now: Level, after: Level) -> float:
        return 0.0

    def step(
        self,
        x: Any,
        denoise: Any,
        now: Level,
        after: Level,
        noise: Any = None,
        memory: Memory | None = None,
    ) -> Any:
        assert memory is not None
        memory.remember(now, x0_from_eps(x, denoise(x, now), now), 3)
        if order_of(memory, after) < 3:
            return _lower(x, now, after, memory)
        (level_2, m2), (level_1, m1), (_, m0) = memory.past
        lambda_t, lambda_0 = half_log_snr(after), half_log_snr(now)
        lambda_1, lambda_2 = half_log_snr(level_1), half_log_snr(level_2)
        h, h_0, h_1 = lambda_t - lambda_0, lambda_0 - lambda_1, lambda_1 - lambda_2
        r0, r1 = h_0 / h, h_1 / h
        d1_0, d1_1 = (1.0 / r0) * (m0 - m1), (1.0 / r1) * (m1 - m2)
        d1 = d1_0 + (r0 / (r0 + r1)) * (d1_0 - d1_1)
        d2 = self.curvature * (1.0 / (r0 + r1)) * (d1_0 - d1_1)
        e = math.exp(-h) - 1.0
        return (
            (after.sigma / now.sigma) * x
            - (after.alpha * e) * m0
            + (after.alpha * (e / h + 1.0)) * d1
            - (after.alpha * ((e + h) / h**2 - 0.5)) * d2
        )


def _lower(x: Any, now: Level, after: Level, memory: Memory) -> Any:
    """The same step by our solver at the available order; its prediction is already made."""
    past = Memory(memory.left, memory.past[:-1])
    past.few = memory.few
    eps = (x - now.alpha * memory.past[-1][1]) / now.sigma
    return DpmSolverPP(min(2, order_of(memory, after))).step(
        x, lambda *_: eps, now, after, None, past
    )


def official_ddpm_step(x: Any, eps: Any, t: int, bar: float, bar_next: float, noise: Any) -> Any:
    """One iteration of the official DDIM code's `ddpm_steps`; `t` is the timestep of `bar`."""
    beta_t = 1 - bar / bar_next
    x0 = np.clip((1.0 / bar) ** 0.5 * x - (1.0 / bar - 1) ** 0.5 * eps, -1, 1)
    mean = (bar_next**0.5 * beta_t * x0 + (1 - beta_t) ** 0.5 * (1 - bar_next) * x) / (1.0 - bar)
    mask = 0.0 if t == 0 else 1.0
    return mean + mask * beta_t**0.5 * noise


def official_step(x: Any, eps: Any, bar: float, bar_next: float, eta: float, noise: Any) -> Any:
    """One iteration of the official `generalized_steps`, in its own notation."""
    x0 = (x - eps * (1 - bar) ** 0.5) / bar**0.5
    c1 = eta * ((1 - bar / bar_next) * (1 - bar_next) / (1 - bar)) ** 0.5
    c2 = ((1 - bar_next) - c1**2) ** 0.5
    return bar_next**0.5 * x0 + c1 * noise + c2 * eps
