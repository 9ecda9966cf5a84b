"""Inversion on a backend, from images to latents: its settings, and the encoding of one batch.

The latent of an image is x_T at the noisiest of the sampler's timesteps. DDIM at eta 0 with the
same steps and spacing decodes it; the round trip's error is the one that `diptych encode` reports.
Nothing is random: a latent depends only on (weights, steps, spacing, refine, image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diptych.diffusion.schedule import CLEAN, Level, Schedule
from diptych.errors import UserError
from diptych.sampling.denoiser import Observer
from diptych.sampling.engine import Engine, finite
from diptych.sampling.memory import check_batch
from diptych.sampling.sampler import Sampler, make_sampler
from diptych.sampling.solvers import invert
from diptych.types import Float32

MOST_REFINE = 100


@dataclass(frozen=True)
class Inversion:
    """Settings of an inversion: DDIM at eta 0 with these steps, and rounds of refinement."""

    sampler: Sampler
    refine: int = 1

    def card(self, schedule: Schedule) -> dict[str, Any]:
        """All settings that determine the latents; `network_calls` only counts the encoding."""
        timesteps = self.sampler.timesteps(schedule)
        return {
            "steps": self.sampler.steps,
            "spacing": self.sampler.spacing,
            "refine": self.refine,
            "timesteps": timesteps[::-1],
            "level": timesteps[0],
            "network_calls": len(timesteps) * (1 + self.refine),
        }


def make_inversion(
    steps: int = 50,
    spacing: str | None = None,
    refine: int = 1,
    timesteps: int = 1000,
    ends_in_noise: bool = False,
) -> Inversion:
    """Make a checked inversion.

    Raises:
        UserError: steps is outside 1 .. T, the spacing is unknown or repeats timesteps, or refine
            is outside 0 .. 100.
    """
    if not 0 <= refine <= MOST_REFINE:
        raise UserError(f"refine is {refine}; it must be 0 .. {MOST_REFINE} rounds")
    if spacing == "official-quad":
        raise UserError(f"spacing '{spacing}' visits timesteps twice; an inversion needs another")
    sampler = make_sampler(
        "ddim", steps, 0.0, spacing, timesteps=timesteps, ends_in_noise=ends_in_noise
    )
    return Inversion(sampler, refine)


def encode(
    engine: Engine, inversion: Inversion, images: Float32, observe: Observer | None = None
) -> Float32:
    """Encode images in [-1, 1] as latents, both (B, C, H, W), float32.

    Raises:
        UserError: the settings do not fit the schedule, the batch does not fit in memory, or a
            latent is not finite.
    """
    inversion.sampler.check(engine.schedule)
    backend = engine.backend
    check_batch(engine.plan, len(images), backend.name, backend.device, backend.free_memory)
    timesteps = inversion.sampler.timesteps(engine.schedule)[::-1]
    levels = [CLEAN, *map(engine.schedule.level, timesteps)]

    def reached(k: int, level: Level, x: Any) -> None:
        engine.backend.submit(x)
        if observe is not None:
            observe(k, level, x)

    denoise = engine.denoiser(inversion.sampler)
    x = invert(denoise, engine.backend.array(images), levels, inversion.refine, reached)
    return finite(engine.backend.numpy(x), range(len(images)))
