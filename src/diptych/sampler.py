"""The one sampling loop, for any solver, any panel and any array type.

    x = x_T;   for (now, after) in the levels from noisy to clean:   x = solver.step(...)

Image i is a function of (weights, sampler, seed, i): its first noise and the noise of its k-th step
are streams of their own, keyed by (seed, i, k). The batch that computes it changes at most how the
kernels round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from diptych.backend import Backend
from diptych.blueprint import Plan, time_embedding
from diptych.errors import UserError, nearest
from diptych.noise import Float32, normal_per_image
from diptych.process import eps_from_x0, x0_from_eps
from diptych.schedule import CLEAN, Level, Schedule, make_spacing
from diptych.solvers import Ddim

SOLVERS = ("ddpm", "ddim")
DDIM_STEPS = 50  # where not given; ddpm takes every timestep


@dataclass(frozen=True)
class Sampler:
    """How images are drawn: everything but the weights and the seed."""

    solver: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    spacing: str = "uniform"
    clip: bool = False

    def timesteps(self, schedule: Schedule) -> list[int]:
        """The chosen timesteps in the order of sampling, from noisy to clean."""
        return make_spacing(self.spacing, self.steps, schedule.timesteps)[::-1]

    def card(self, schedule: Schedule) -> dict[str, Any]:
        """All that determines the sampler, for manifests: equal cards draw equal images."""
        return {
            **asdict(self),
            "timesteps": self.timesteps(schedule),
            "last_timestep": CLEAN.t,
            "sigma_type": "posterior" if self.eta else "none",
            "network_calls": self.steps,
        }


def make_sampler(
    solver: str = "ddim",
    steps: int | None = None,
    eta: float | None = None,
    spacing: str = "uniform",
    clip: bool = False,
    timesteps: int = 1000,
) -> Sampler:
    """A checked sampler. `ddpm` is `ddim` with eta 1, by default over all timesteps.

    Raises:
        UserError: an unknown solver or spacing, steps outside 1 .. T, eta below 0, or ddpm with an
            eta other than 1.
    """
    if solver not in SOLVERS:
        raise UserError(f"solver '{solver}' is not known{nearest(solver, list(SOLVERS))}")
    if solver == "ddpm" and eta not in (None, 1.0):
        raise UserError(f"solver 'ddpm' has eta 1, not {eta}; use --solver ddim with --eta {eta}")
    chosen_eta = (1.0 if solver == "ddpm" else 0.0) if eta is None else float(eta)
    if not (np.isfinite(chosen_eta) and chosen_eta >= 0):
        raise UserError(f"eta is {chosen_eta}; it must be 0 or more")
    default = timesteps if solver == "ddpm" else min(timesteps, DDIM_STEPS)
    count = default if steps is None else steps
    make_spacing(spacing, count, timesteps)
    return Sampler(solver, count, chosen_eta, spacing, clip)


Observer = Callable[[int, Level, Any], None]
"""Called after each step with (k, the level reached, the images there)."""


@dataclass(frozen=True)
class Engine:
    """A network on a panel with its schedule: what the loop needs to draw images."""

    backend: Backend
    network: Any
    plan: Plan
    schedule: Schedule

    def denoise(self, x: Any, level: Level) -> Any:
        """Predicted noise; all rows share one timestep, so its embedding is one row."""
        embedding = self.backend.array(time_embedding([level.t], self.plan.ch))
        return self.backend.predict(self.network, x, embedding)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.plan.channels, self.plan.size, self.plan.size)

    def draw(
        self,
        sampler: Sampler,
        images: Sequence[int],
        seed: int = 0,
        x_T: Float32 | None = None,
        observe: Observer | None = None,
    ) -> Float32:
        """Images by index, (len(images), C, H, W) float32 as the solver left them, unclipped.

        Args:
            sampler: solver, steps and the rest.
            images: indices of the images to draw; index i always gives the same image.
            seed: keys all noise.
            x_T: the first noise, in place of the keyed one.
            observe: sees every step.
        """
        start = normal_per_image(seed, "initial_noise", images, self.shape) if x_T is None else x_T
        x = self.backend.array(start)
        solver = Ddim(sampler.eta)
        predict = self.clipped if sampler.clip else self.denoise
        levels = [self.schedule.level(t) for t in sampler.timesteps(self.schedule)] + [CLEAN]
        for k, (now, after) in enumerate(pairwise(levels)):
            noise = None
            if solver.noise_scale(now, after) > 0:
                host = normal_per_image(seed, "solver_noise", images, self.shape, k)
                noise = self.backend.array(host)
            x = solver.step(x, predict, now, after, noise)
            self.backend.submit(x)
            if observe is not None:
                observe(k, after, x)
        return self.backend.numpy(x)

    def clipped(self, x: Any, level: Level) -> Any:
        """Predicted noise after the image that it implies was clipped to [-1, 1]."""
        x0 = self.backend.clip(x0_from_eps(x, self.denoise(x, level), level))
        return eps_from_x0(x, x0, level)
