"""UniPC: a multistep predictor, and a corrector that costs no network call.

    predictor:  x'  = (sigma'/sigma) x - alpha' [expm1(-h) m0 + B sum_i rho_i (m_i - m0) / r_i]
    corrector:  the same with one more point, (m' - m0), weighted against the new prediction m'
    m_i images predicted at earlier levels;  r_i = (lambda_i - lambda_0) / h;  B = expm1(-h)

Each call is used twice: it corrects the step that led to its level, and predicts the next one. So a
whole trajectory takes S calls; the step to the clean image is not corrected. The first and the last
steps have lower order. A corrected order p converges at order p + 1 if the start allows it.

Source: Zhao et al. 2023, arXiv:2302.04867, algorithms 1 and 2, data prediction, B_2(h).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.diffusion.process import x0_from_eps
from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.multistep import Multistep
from diptych.sampling.solvers.solver import Step, half_log_snr, require_image
from diptych.types import A


@dataclass(frozen=True)
class UniPC(Multistep):
    """Deterministic, of order 1, 2 or 3, with its corrector unless `correct` is off."""

    correct: bool = True
    FEW = math.inf  # the authors lower the last orders of every trajectory

    def step(self, s: Step[A]) -> A:
        """As `Solver.step`; the images at `s.after` are corrected by the next step."""
        require_image(s.now)
        x, now, after, memory = s.x, s.now, s.after, s.memory
        image = x0_from_eps(x, s.denoise(x, now), now)
        if self.correct and memory.start is not None:
            x = _update(memory.start, memory.past, memory.order, now, image)
        memory.remember(now, image, keep=self.order)
        memory.order = self.order_at(s)
        memory.start = x
        return _update(x, memory.past, memory.order, after, None)


def _update(x: A, past: list[tuple[Level, Any]], order: int, after: Level, new: Any) -> A:
    """Step from the newest level of `past` to `after`; corrected if `new`, its image, is given."""
    (now, m0), older = past[-1], past[-2 : -1 - order : -1]
    here = half_log_snr(now)
    h = half_log_snr(after) - here
    ratios = [(half_log_snr(level) - here) / h for level, _ in older]
    images = [image for _, image in older]
    if new is not None:
        ratios.append(1.0)
        images.append(new)
    b = after.alpha * math.expm1(-h)
    weights = [-b * rho / r for rho, r in zip(rhos(h, ratios), ratios, strict=True)]
    out = (after.sigma / now.sigma) * x + (-b - sum(weights)) * m0
    for weight, image in zip(weights, images, strict=True):
        out = out + weight * image
    return out  # type: ignore[no-any-return]


def rhos(h: float, ratios: list[float]) -> list[float]:
    """The weights rho that cancel the error up to the order of the points given.

    Solves sum_i rho_i r_i^(k-1) = k! h phi_(k+1)(h) / B, k = 1 .. n. One point takes 1/2, as the
    authors do: the difference is of an order that is not reached anyway.
    """
    if len(ratios) <= 1:
        return [0.5] * len(ratios)
    hh, b = -h, math.expm1(-h)
    phi, factorial, right = b / hh - 1.0, 1, []
    for k in range(1, len(ratios) + 1):
        right.append(phi * factorial / b)
        factorial *= k + 1
        phi = phi / hh - 1.0 / factorial
    powers = np.array([[r ** (k - 1) for r in ratios] for k in range(1, len(ratios) + 1)])
    return [float(rho) for rho in np.linalg.solve(powers, np.array(right))]
