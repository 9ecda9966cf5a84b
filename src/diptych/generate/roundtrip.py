"""A round trip: images encoded to noise, and decoded with the same levels.

The error is the mean squared difference of all pixel values on a scale of 0 to 1, with the
reconstruction clipped to that range, as in Song et al. 2021, arXiv:2010.02502, table 2.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.errors import UserError
from diptych.generate.inputs import Inputs
from diptych.generate.samples import MOST
from diptych.model import Model, batches_of
from diptych.sampling.denoiser import Observer
from diptych.sampling.inversion import Inversion, encode
from diptych.types import Float32, Float64, Pixels

FORMATS = ("safetensors", "npz")


@dataclass(frozen=True)
class EncodeRequest:
    """An encoding job: images and settings.

    Attributes:
        inputs: the images.
        inversion: steps, spacing, refinement.
        curve: further inversions, for which only the error is measured.
        batch: images at once.
        form: the format of the latents' file, one of FORMATS.
    """

    inputs: Inputs
    inversion: Inversion
    curve: tuple[Inversion, ...] = ()
    batch: int = 64
    form: str = "safetensors"

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError(f"--batch is {self.batch}; it must be 1 or more")
        if self.batch > MOST:
            raise UserError(f"--batch is {self.batch}; {MOST:,} images at once are the most")
        if self.form not in FORMATS:
            raise UserError(f"--format is '{self.form}'; latents are {' or '.join(FORMATS)}")

    @property
    def batches(self) -> list[list[int]]:
        """The images' indices in batches of one size; the last index pads the last batch."""
        num = len(self.inputs.pixels)
        batches = batches_of(num, min(self.batch, num))
        return [[min(i, num - 1) for i in rows] for rows in batches]


@dataclass(frozen=True)
class RoundTrip:
    """Latents, reconstructions (both (N, C, H, W) float32) and the error of each image."""

    latents: Float32
    back: Float32
    error: Float64


def errors_of(model: Model, original: Pixels, back: Float32) -> Float64:
    """The error of each image, (N,); `back` is on the network's scale, and is clipped."""
    pixels = model.engine.preprocess.unit(back)
    return np.asarray(((pixels - original / 255.0) ** 2).mean(axis=(1, 2, 3)))


def round_trip(
    model: Model, inversion: Inversion, pixels: Pixels, observe: Observer | None = None
) -> RoundTrip:
    """Encode one batch (B, C, H, W) and decode its latents."""
    latents = encode(model.engine, inversion, model.engine.floats(pixels), observe)
    back = model.engine.draw(inversion.sampler, range(len(pixels)), 0, latents, observe=observe)
    return RoundTrip(latents, back, errors_of(model, pixels, back))


@contextmanager
def steps_shown(
    model: Model, inversions: Sequence[Inversion], batches: int, progress: bool
) -> Iterator[Callable[..., None]]:
    """A progress bar of solver steps, encoding and decoding; yields a function that counts one."""
    total = batches * sum(2 * one.sampler.steps for one in inversions)
    pause = 0.1 if sys.stderr.isatty() else 30.0  # few lines in a log file
    name = f"{model.engine.backend.name} encode"
    hidden = not progress or total == 0
    with tqdm(total=total, unit="step", desc=name, disable=hidden, mininterval=pause) as bar:

        def count(*_: Any) -> None:
            bar.update()

        yield count
