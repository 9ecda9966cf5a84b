"""Published update rules in their authors' notation, as references for ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.diffusion.process import x0_from_eps
from diptych.sampling.solvers import DpmSolverPP, Memory, Solver, Step
from diptych.sampling.solvers.solver import half_log_snr


@dataclass(frozen=True)
class Published3M(Solver):
    """DPM-Solver++ 3M as in the authors' code and in diffusers.

    `curvature` 1 is theirs; 2 gives the second difference its full weight, like ours.
    """

    curvature: float = 1.0

    def step(self, s: Step[Any]) -> Any:
        x, now, after, memory = s.x, s.now, s.after, s.memory
        memory.remember(now, x0_from_eps(x, s.denoise(x, now), now), 3)
        if DpmSolverPP(3).order_at(s) < 3:
            return _lower(s)
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


def _lower(s: Step[Any]) -> Any:
    """The same step by ours, at the order that can be had: its prediction is already made."""
    past = Memory(s.memory.left, s.memory.past[:-1])
    past.steps = s.memory.steps
    eps = (s.x - s.now.alpha * s.memory.past[-1][1]) / s.now.sigma
    again = Step(s.x, lambda *_: eps, s.now, s.after, memory=past)
    return DpmSolverPP(min(2, DpmSolverPP(3).order_at(s))).step(again)


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
