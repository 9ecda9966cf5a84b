"""Images to latents on a panel: the settings of an inversion, and its run batch by batch.

The latent of an image is x_T at the noisiest of the sampler's timesteps. DDIM at eta 0 with the
same steps and spacing turns it back; what is lost on the way is the error that `diptych encode`
reports. Nothing is random, so a latent depends on (weights, steps, spacing, refine, image) alone.
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
    """How images are encoded: DDIM at eta 0 with these steps, and rounds of refinement."""

    sampler: Sampler
    refine: int = 1

    def card(self, schedule: Schedule) -> dict[str, Any]:
        """All that determines it; `network_calls` are those of the way up."""
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
    """A checked inversion.

    Raises:
        UserError: steps outside 1 .. T, an unknown spacing or one with repeats, refine below 0.
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
    """Latents of images, both (B, C, H, W) float32; images are in [-1, 1].

    Raises:
        UserError: settings that do not fit the schedule, or a latent that is not finite.
    """
    inversion.sampler.check(engine.schedule)
    check_batch(engine.plan, len(images), engine.backend.name, engine.backend.device)
    timesteps = inversion.sampler.timesteps(engine.schedule)[::-1]
    levels = [CLEAN, *map(engine.schedule.level, timesteps)]

    def reached(k: int, level: Level, x: Any) -> None:
        engine.backend.submit(x)
        if observe is not None:
            observe(k, level, x)

    denoise = engine.denoiser(inversion.sampler)
    x = invert(denoise, engine.backend.array(images), levels, inversion.refine, reached)
    return finite(engine.backend.numpy(x), range(len(images)))
