"""DDPM's ancestral step: the posterior's mean, and one of two fixed variances.

    beta  = 1 - (alpha / alpha')^2
    x'    = (alpha' beta x0 + sqrt(1 - beta) sigma'^2 x) / sigma^2 + s noise
    small:  s^2 = (sigma' / sigma)^2 beta            the posterior's own; DDIM at eta 1
    large:  s^2 = beta                               the DDIM paper's sigma-hat

Source: Ho et al. 2020, arXiv:2006.11239, section 3.2; Song et al. 2021, arXiv:2010.02502,
section 5.1. The official code's `ddpm_noisy` is `large` with x0 clipped to [-1, 1]. The last step
adds no noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from diptych.diffusion.schedule import Level
from diptych.errors import UserError, nearest
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.ddim import Ddim, mean
from diptych.sampling.solvers.solver import Solver, Step, require_image, with_noise
from diptych.types import A

POSTERIOR = Ddim(1.0)


@dataclass(frozen=True)
class Ddpm(Solver):
    """The ancestral update with the fixed-small or the fixed-large variance."""

    variance: Literal["small", "large"] = "small"
    needs = Needs(repeats=True)

    def __post_init__(self) -> None:
        name, known = self.variance, ["small", "large"]
        if name not in known:
            raise UserError(f"variance '{name}' is not known{nearest(name, known)}")

    def noise_scale(self, now: Level, after: Level) -> float:
        """s; 0 for the last step."""
        if self.variance == "small" or after.sigma == 0.0:
            return POSTERIOR.noise_scale(now, after)
        ratio = now.alpha / after.alpha
        return math.sqrt(max(0.0, 1.0 - ratio * ratio))

    def step(self, s: Step[A]) -> A:
        require_image(s.now)
        moved = mean(s, POSTERIOR.noise_scale(s.now, s.after))
        return with_noise(moved, self.noise_scale(s.now, s.after), s)
