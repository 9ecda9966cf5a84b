"""DDIM, and DDPM as its special case: one step from level `now` to the cleaner level `after`.

    x0    = (x - sigma eps) / alpha
    x'    = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s noise
    s     = eta * (sigma' / sigma) * sqrt(1 - (alpha / alpha')^2)

eta = 0 is deterministic; eta = 1 is DDPM's ancestral step with the posterior's variance.
Source: Song et al. 2021, arXiv:2010.02502, equations 12 and 16. (Their alpha is our alpha squared.)

The step is one linear combination with host floats as coefficients, so it works in any framework.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.solver import Solver, Step, require_image, with_noise
from diptych.sampling.solvers.wrappers import implied
from diptych.types import A


@dataclass(frozen=True)
class Ddim(Solver):
    """The DDIM update; `eta` >= 0 scales the noise added at each step."""

    eta: float = 0.0
    needs = Needs(repeats=True)

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta < math.inf:
            raise UserError(f"eta is {self.eta}; it must be 0 or more")

    def noise_scale(self, now: Level, after: Level) -> float:
        """s, the standard deviation of the noise that the step from `now` to `after` adds."""
        ratio = now.alpha / after.alpha
        return self.eta * after.sigma / now.sigma * math.sqrt(max(0.0, 1.0 - ratio * ratio))

    def step(self, s: Step[A]) -> A:
        """As `Solver.step`. Raises UserError if eta asks for more noise than `s.after` holds."""
        require_image(s.now)
        scale = self.noise_scale(s.now, s.after)
        if s.after.sigma**2 - scale**2 < -1e-12:
            raise UserError(
                f"eta={self.eta} asks for more noise than remains at t={s.after.t}; use 1 or less"
            )
        return with_noise(mean(s, scale), scale, s)


def mean(s: Step[A], scale: float) -> A:
    """The step without its noise, alpha' x0 + sqrt(sigma'^2 - scale^2) eps; one network call.

    x0 is limited if `s.denoise` limits only the image (`wrappers.image_limited`).
    """
    eps = s.denoise(s.x, s.now)
    kept = math.sqrt(max(0.0, s.after.sigma**2 - scale**2))
    if getattr(s.denoise, "limit", None) is not None:
        return s.after.alpha * implied(s.denoise, s.x, eps, s.now) + kept * eps
    ratio = s.after.alpha / s.now.alpha
    return ratio * s.x + (kept - ratio * s.now.sigma) * eps
