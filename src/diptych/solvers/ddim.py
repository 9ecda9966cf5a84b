"""DDIM, and DDPM as its special case: one step from level `now` to the cleaner level `after`.

    x0    = (x - sigma eps) / alpha
    x'    = alpha' x0 + sqrt(sigma'^2 - s^2) eps + s noise
    s     = eta * (sigma' / sigma) * sqrt(1 - (alpha / alpha')^2)

eta = 0 is deterministic; eta = 1 is DDPM's ancestral step with the posterior's variance.
Source: Song et al. 2021, arXiv:2010.02502, equations 12 and 16. (Their alpha is our alpha squared.)

The step is one linear combination whose coefficients are host floats, so it serves any framework.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from diptych.errors import UserError
from diptych.process import A
from diptych.schedule import Level


@dataclass(frozen=True)
class Ddim:
    """The DDIM update; `eta` >= 0 scales the noise added at each step."""

    eta: float = 0.0

    def noise_scale(self, now: Level, after: Level) -> float:
        """s, the standard deviation of the noise that the step from `now` to `after` adds."""
        ratio = now.alpha / after.alpha
        return self.eta * after.sigma / now.sigma * math.sqrt(max(0.0, 1.0 - ratio * ratio))

    def step(
        self,
        x: A,
        denoise: Callable[[A, Level], A],
        now: Level,
        after: Level,
        noise: A | None,
    ) -> A:
        """Images at level `after` from images at level `now`.

        Args:
            x: images at `now`, (B, C, H, W).
            denoise: predicts eps from images and their level: one network call.
            now, after: this level and the next one; `after` may be the clean image.
            noise: standard normal, shaped as x; may be None where `noise_scale` is 0.

        Raises:
            UserError: where no image remains at `now` (alpha 0), or eta asks for more noise
                than the level holds.
        """
        if now.alpha == 0.0:
            raise UserError(
                f"at t={now.t} the schedule leaves nothing of the image, and DDIM divides by it; "
                f"use another schedule, or a spacing that starts lower"
            )
        s = self.noise_scale(now, after)
        remainder = after.sigma**2 - s**2
        if remainder < -1e-12:
            raise UserError(
                f"eta={self.eta} asks for more noise than remains at t={after.t}; use 1 or less"
            )
        scale = after.alpha / now.alpha
        eps = denoise(x, now)
        mixed = scale * x + (math.sqrt(max(0.0, remainder)) - scale * now.sigma) * eps
        if s == 0.0:
            return mixed  # type: ignore[no-any-return]
        if noise is None:
            raise ValueError(f"the step from t={now.t} adds noise (scale {s:g}), but none is given")
        return mixed + s * noise  # type: ignore[no-any-return]
