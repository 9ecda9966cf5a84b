"""Starts of trajectories other than their keyed noise: latents, points between them, images.

    latents          decoded: the inverse of `diptych encode`
    interpolation    noises on the arcs between two or more noises (slerp)
    images           SDEdit: noised to a level, from which the solver continues

SDEdit uses the noise that image i of the same seed would start from, so level 1 is close to a plain
sample and level 0 is the image itself. Source: Meng et al. 2022, arXiv:2108.01073.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.data.preprocess import PLAIN, Preprocess
from diptych.diffusion.process import add_noise
from diptych.diffusion.schedule import Level, Schedule
from diptych.errors import UserError
from diptych.generate.inputs import Inputs
from diptych.generate.interpolation import path
from diptych.generate.latents import Latents
from diptych.rng import Noise, normal_per_image
from diptych.sampling.sampler import Sampler
from diptych.types import Float32


@dataclass(frozen=True)
class FromRows:
    """Given noises; row i belongs to image i."""

    x: Float32
    facts: dict[str, Any] = field(default_factory=dict)

    def rows(self, images: Sequence[int]) -> Float32:
        """The noises of these images; the last one repeats past the end (padding of a batch)."""
        taken: Float32 = self.x[np.minimum(np.asarray(images), len(self.x) - 1)]
        return taken

    def card(self) -> dict[str, Any]:
        """The noises' entries in a manifest."""
        return self.facts


@dataclass(frozen=True)
class FromImages:
    """SDEdit: the images in turn, each with the noise of its index, at one level."""

    inputs: Inputs
    seed: int
    level: Level
    asked: str
    preprocess: Preprocess = PLAIN
    noise: Noise = "keyed"

    def rows(self, images: Sequence[int]) -> Float32:
        """Images noised to the level; image i comes from input i modulo the number of inputs."""
        pixels = self.inputs.pixels[np.asarray(images) % len(self.inputs.pixels)]
        x0 = self.preprocess.still(pixels)
        if self.level.sigma == 0.0:
            return x0
        shape = x0.shape[1:]
        eps = normal_per_image(self.seed, "initial_noise", images, shape, noise=self.noise)
        return add_noise(x0, eps, self.level)

    def card(self) -> dict[str, Any]:
        """The start's entries in a manifest."""
        facts = {"kind": "images", "level_asked": self.asked, "noised_to": self.level.t}
        return {**facts, **self.inputs.facts()}


def parse_level(text: str, timesteps: int) -> int:
    """The timestep of a level; -1 is the clean image.

    Args:
        text: a fraction of T from 0 to 1, or a timestep of 2 or more.
        timesteps: T of the schedule.

    Raises:
        UserError: not a number, or out of range.
    """
    try:
        value = float(text)
    except ValueError as error:
        raise UserError(f"--level {text}: give a fraction such as 0.5, or a timestep") from error
    if 0 <= value <= 1:
        return round(value * timesteps) - 1
    if not value.is_integer() or not 0 <= value < timesteps:
        raise UserError(
            f"--level {text}: a fraction from 0 to 1, or a whole timestep 2 .. {timesteps - 1}"
        )
    return int(value)


def from_latents(latents: Latents, first: int, num: int | None) -> FromRows:
    """A start from latents for a sampler that begins at timestep `first`.

    Raises:
        UserError: encoded up to another level, or fewer than `num`.
    """
    _check_level(latents, first)
    if num is not None and num > len(latents.x):
        raise UserError(f"{latents.name}: holds {len(latents.x)} latents, --num is {num}")
    facts = {"kind": "latents", **_facts(latents)}
    return FromRows(latents.x[:num], facts)


def between_seeds(
    points: Sequence[tuple[int, int]], between: int, shape: Sequence[int], noise: Noise = "keyed"
) -> FromRows:
    """A path through the noises of (seed, index) points, with `between` noises on each arc."""
    noises = [normal_per_image(s, "initial_noise", [i], shape, noise=noise) for s, i in points]
    names = [f"{seed}:{index}" for seed, index in points]
    facts = {"kind": "interpolation", "of": "seed:index", "points": names, "between": between}
    return FromRows(path(np.concatenate(noises), between), facts)


def refuse_unlike(sampler: Sampler, schedule: Schedule) -> None:
    """Raise UserError if the images of an interpolation would differ by more than their start.

    They would if each had its own noise or class.
    """
    if sampler.card(schedule)["sigma_type"] != "none":
        raise UserError(
            f"solver '{sampler.solver}' with eta {sampler.eta:g} adds noise of its own to each "
            f"image, which breaks the way between them; use a solver without, such as ddim, --eta 0"
        )
    if sampler.classes is not None and len(sampler.classes) > 1 and sampler.guidance != 0.0:
        raise UserError("an interpolation has one class; give it, as in --class 7, or --guidance 0")


def between_latents(latents: Latents, points: Sequence[int], between: int, first: int) -> FromRows:
    """A path through encoded images, given by their numbers in the file."""
    _check_level(latents, first)
    for point in points:
        if point >= len(latents.x):
            raise UserError(
                f"{latents.name}: holds {len(latents.x)} latents, --interpolate asks for {point}"
            )
    facts: dict[str, Any] = {"kind": "interpolation", "of": "latents"}
    facts["points"] = [str(p) for p in points]
    facts |= {"between": between, **_facts(latents)}
    return FromRows(path(latents.x[list(points)], between), facts)


def _facts(latents: Latents) -> dict[str, Any]:
    return {"latents": latents.name, "latents_sha256": latents.sha256, "encoded": latents.card}


def _check_level(latents: Latents, first: int) -> None:
    level = latents.card.get("level")
    if level is not None and level != first:
        raise UserError(
            f"{latents.name}: was encoded up to t={level}, this sampler starts at t={first}; "
            f"decode with --steps {latents.card['steps']} --spacing {latents.card['spacing']}"
        )


def parse_points(text: str, seed: int, latents: bool) -> list[tuple[int, int]]:
    """Parse `3,7` or `0:3,5:7` into (seed, index) pairs.

    Raises:
        UserError: fewer than two, not whole numbers, a number too large, or seeds for latents.
    """
    points = []
    for part in text.split(","):
        own, colon, index = part.strip().rpartition(":")
        if colon and latents:
            raise UserError(f"--interpolate {text}: latents have numbers and no seeds, as in 0,1")
        if not index.isdecimal() or (colon and not own.isdecimal()):
            raise UserError(
                f"--interpolate {text}: give indices as in 3,7, or seed:index as in 0:3"
            )
        points.append((int(own) if colon else seed, int(index)))
    if len(points) < 2:
        raise UserError(f"--interpolate {text}: give two or more, as in 3,7")
    if max(max(point) for point in points) >= 2**63:
        raise UserError(f"--interpolate {text}: a number is too large; the most is 2**63 - 1")
    return points
