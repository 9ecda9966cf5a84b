"""DEIS, multistep: extrapolates the predicted noise in log(sigma / alpha), solves the rest exactly.

    y = x / alpha,   s = sigma / alpha,   l = log s:      dy/ds = eps
    y' = y + integral from s to s' of P(log u) du,        P through the last p predictions at l_i
       = y + sum_i w_i e_i,      sum_i w_i (l_i - l)^k = integral of (log u - l)^k du,  k < p

With h = l - l' the integrals are s J_k, J_0 = exp(-h) - 1, J_k = (-h)^k exp(-h) - k J_(k-1).
The polynomial in log s is one of the authors' choices, and the one that diffusers has; it is
DPM-Solver's multistep rule on the noise, where DPM-Solver++ has the image.

Source: Zhang and Chen 2023, arXiv:2204.13902, section 3.3 and equation 15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.multistep import Multistep
from diptych.sampling.solvers.solver import Step, half_log_snr, require_image
from diptych.types import A


@dataclass(frozen=True)
class Deis(Multistep):
    """Deterministic, of order 1 (which is DDIM), 2 or 3."""

    def step(self, s: Step[A]) -> A:
        now, after = s.now, s.after
        require_image(now)
        s.memory.remember(now, s.denoise(s.x, now), keep=self.order)
        newest_first = s.memory.past[: -1 - self.order_at(s) : -1]
        out = (after.alpha / now.alpha) * s.x
        weights = noise_weights([level for level, _ in newest_first], after)
        for weight, (_, eps) in zip(weights, newest_first, strict=True):
            out = out + (after.alpha * weight) * eps
        return out


def noise_weights(past: list[Level], after: Level) -> list[float]:
    """w_i of the noise predicted at the levels of `past`, the newest first."""
    now = past[0]
    ratio = now.sigma / now.alpha
    if len(past) == 1:
        return [after.sigma / after.alpha - ratio]
    here = half_log_snr(now)
    h = half_log_snr(after) - here
    integrals = [math.expm1(-h)]
    for k in range(1, len(past)):
        integrals.append((-h) ** k * math.exp(-h) - k * integrals[-1])
    offsets = [here - half_log_snr(level) for level in past]  # l_i - l, 0 first
    powers = np.array([[offset**k for offset in offsets] for k in range(len(past))])
    return [ratio * float(w) for w in np.linalg.solve(powers, np.array(integrals))]
