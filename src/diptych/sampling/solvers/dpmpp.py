"""DPM-Solver++, multistep: extrapolates the predicted image, solves the rest exactly.

    x' = (sigma'/sigma) x + alpha' integral over one step of exp(-(lambda' - l)) x0(l) dl
    lambda = log(alpha / sigma),   h = lambda' - lambda,   r = (earlier h) / h
    2M:  x0(l) through the last two predictions, in the midpoint form
    3M:  x0(l) as the parabola through the last three

The SDE variant adds noise and solves 2M on exp(-2 ...): at order 1 it is DDPM.
Source: Lu et al. 2022, arXiv:2211.01095, algorithm 2; equation 12 and appendix for the SDE.

The published code's 3M halves the parabola's curvature: its second difference (D1_0 - D1_1) /
(r0 + r1) is h^2 x0'' / 2, but its weight belongs to h^2 x0''. The halved form converges at order 2,
the full form at order 3 (tests/sampling/test_orders.py measures both). Ours is the full form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diptych.diffusion.process import x0_from_eps
from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.multistep import Multistep
from diptych.sampling.solvers.solver import Memory, Step, half_log_snr, require_image, with_noise
from diptych.types import A


@dataclass(frozen=True)
class DpmSolverPP(Multistep):
    """Deterministic, of order 1 (which is DDIM), 2 or 3."""

    def step(self, s: Step[A]) -> A:
        predict(s, keep=self.order)
        h = half_log_snr(s.after) - half_log_snr(s.now)
        weights = image_weights(s, h, self.order_at(s))
        return _combined((s.after.sigma / s.now.sigma) * s.x, weights, s.memory)


@dataclass(frozen=True)
class DpmSolverPPSde(Multistep):
    """2M with noise: DDPM's process at second order in the smooth part (or, order 1, DDPM)."""

    MOST = 2

    def noise_scale(self, now: Level, after: Level) -> float:
        """sigma' sqrt(1 - exp(-2 h))."""
        h = half_log_snr(after) - half_log_snr(now)
        return after.sigma * math.sqrt(-math.expm1(-2.0 * h))

    def step(self, s: Step[A]) -> A:
        predict(s, keep=self.order)
        h = half_log_snr(s.after) - half_log_snr(s.now)
        total = -math.expm1(-2.0 * h) * s.after.alpha
        weights = _two(total, h, s.memory) if self.order_at(s) == 2 else [total]
        moved = _combined((s.after.sigma / s.now.sigma * math.exp(-h)) * s.x, weights, s.memory)
        return with_noise(moved, self.noise_scale(s.now, s.after), s)


def predict(s: Step[A], keep: int) -> None:
    """Call the network once and remember the implied images; keep only the `keep` newest."""
    require_image(s.now)
    s.memory.remember(s.now, x0_from_eps(s.x, s.denoise(s.x, s.now), s.now), keep)


def image_weights(s: Step[A], h: float, order: int) -> list[float]:
    """Weights of the predicted images, the newest first."""
    now, after, memory = s.now, s.after, s.memory
    total = -math.expm1(-h) * after.alpha
    if order == 1:
        return [total]
    if order == 2:
        return _two(total, h, memory)
    earlier, first = (half_log_snr(level) for level, _ in reversed(memory.past[-3:-1]))
    r0 = (half_log_snr(now) - earlier) / h
    r1 = (earlier - first) / h
    slope = after.alpha * (math.expm1(-h) / h + 1.0)
    curvature = -2.0 * after.alpha * ((math.expm1(-h) + h) / h**2 - 0.5)
    # x0' h = (1 + q) d0 - q d1 and x0'' h^2 / 2 = (d0 - d1) / (r0 + r1), d0 = (m0 - m1) / r0 ...
    q = r0 / (r0 + r1)
    on_d0 = slope * (1.0 + q) + curvature / (r0 + r1)
    on_d1 = -slope * q - curvature / (r0 + r1)
    return [total + on_d0 / r0, on_d1 / r1 - on_d0 / r0, -on_d1 / r1]


def _two(total: float, h: float, memory: Memory) -> list[float]:
    (before, _), (now, _) = memory.past[-2:]
    share = 0.5 * total * h / (half_log_snr(now) - half_log_snr(before))
    return [total + share, -share]


def _combined(start: A, weights: list[float], memory: Memory) -> A:
    images = [image for _, image in reversed(memory.past)]
    for weight, image in zip(weights, images, strict=False):
        start = start + weight * image
    return start
