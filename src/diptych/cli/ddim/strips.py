"""The official `--interpolation` and `--sequence`: images from chosen noise, and x0 at every step.

    interpolation   0.png ... 10.png, from slerp(z0, z1; k / 10) of `diptych.generate.interpolation`
    sequence        J_I.png: image J as predicted at step I, J in 0 .. 7

z0, z1 and the noise of image J are the keyed noises of images 0, 1 and J. Source: Song et al. 2021,
arXiv:2010.02502, section D.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diptych.diffusion.schedule import Level
from diptych.figures.grids import save_png
from diptych.generate.interpolation import path
from diptych.model import Model
from diptych.rng import normal_per_image
from diptych.sampling.sampler import Sampler

STOPS, ROWS = 11, 8


def interpolation(model: Model, sampler: Sampler, seed: int, out: Path) -> int:
    """Draw eleven images from image 0's noise to image 1's; return their number."""
    shape = model.engine.shape
    ends = normal_per_image(seed, "initial_noise", range(2), shape, noise=sampler.noise)
    noise = path(ends, STOPS - 2)
    drawn = model.engine.draw(sampler, range(STOPS), seed, noise)
    for k, picture in enumerate(model.engine.pixels(drawn)):
        save_png(out / f"{k}.png", picture)
    return STOPS


def sequence(model: Model, sampler: Sampler, seed: int, out: Path) -> int:
    """Draw eight images and save each step's prediction of x0; return the number of files."""

    def predicted(k: int, level: Level, x0: Any) -> None:
        for row, picture in enumerate(model.engine.pixels(model.engine.backend.numpy(x0))):
            save_png(out / f"{row}_{k}.png", picture)

    model.engine.draw(sampler, range(ROWS), seed, predicted=predicted)
    return ROWS * sampler.steps
