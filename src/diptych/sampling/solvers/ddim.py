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
from typing import ClassVar

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.solver import Memory, require_image, with_noise
from diptych.sampling.solvers.wrappers import implied
from diptych.types import A


@dataclass(frozen=True)
class Ddim:
    """The DDIM update; `eta` >= 0 scales the noise added at each step."""

    eta: float = 0.0
    needs: ClassVar[Needs] = Needs(repeats=True)

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta < math.inf:
            raise UserError(f"eta is {self.eta}; it must be 0 or more")

    def calls(self, steps: int) -> int:
        """One network call a step."""
        return steps

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
        noise: A | None = None,
        memory: Memory | None = None,
    ) -> A:
        """Images at level `after` from images at level `now`; as `Solver.step`.

        Raises:
            UserError: where no image remains at `now` (alpha 0), or eta asks for more noise
                than the level holds.
        """
        require_image(now)
        s = self.noise_scale(now, after)
        if after.sigma**2 - s**2 < -1e-12:
            raise UserError(
                f"eta={self.eta} asks for more noise than remains at t={after.t}; use 1 or less"
            )
        eps = denoise(x, now)
        if getattr(denoise, "limit", None) is None:
            return with_noise(mean(x, eps, now, after, s), s, noise, now)
        kept = math.sqrt(max(0.0, after.sigma**2 - s**2))
        moved = after.alpha * implied(denoise, x, eps, now) + kept * eps
        return with_noise(moved, s, noise, now)


def mean(x: A, eps: A, now: Level, after: Level, s: float) -> A:
    """alpha' x0 + sqrt(sigma'^2 - s^2) eps: the step without its noise."""
    scale = after.alpha / now.alpha
    kept = math.sqrt(max(0.0, after.sigma**2 - s**2))
    return scale * x + (kept - scale * now.sigma) * eps
