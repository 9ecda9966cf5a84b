"""Options of `diptych sample` that start trajectories elsewhere than at their own noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from diptych.cli.common import options
from diptych.errors import UserError

STARTS = options(
    click.option("--latents", help="Decode: a folder or file of `diptych encode`."),
    click.option("--interpolate", help="Noises 3,7 (or SEED:INDEX), or numbers in --latents."),
    click.option(
        "--frames-between", type=click.IntRange(0, 1000), help="Images on each arc.  [default: 8]"
    ),
    click.option("--from", "source_image", help="Change this image, folder, .npz or mnist:test."),
    click.option(
        "--level", help="Noise for --from: a fraction of T, or a timestep.  [default: 0.5]"
    ),
)
MOST = 10_000  # images in an interpolation
NAMES = ("latents", "interpolate", "frames_between", "source_image", "level")


class Start:
    """The start that the options ask for, determined before any framework is loaded."""

    def __init__(self, given: dict[str, Any], found: Any, seed: int, num: int | None) -> None:
        from diptych.data.preprocess import preprocess_of
        from diptych.diffusion.schedule import make_schedule
        from diptych.generate.latents import read_latents
        from diptych.network.plan import make_plan

        self.recommended: dict[str, Any] | None = found.sampler
        self.given = {name: given.pop(name) for name in NAMES}
        self.data, self.seed, self.num = given.pop("data"), seed, num
        _check_together(self.given, num)
        # Images are encoded without a class, so they are decoded without one.
        self.silent = {"guidance": 0.0} if found.config.model.num_classes else {}
        plan = make_plan(found.config)
        self.crop = found.config.data.crop
        self.shape = plan.shape
        self.schedule = make_schedule(found.config.diffusion)
        self.preprocess = preprocess_of(found.config.data)
        latents = self.given["latents"]
        self.latents = read_latents(latents, self.shape) if latents is not None else None
        if self.latents is not None:
            encoded_by = self.latents.card.get("weights_sha256")
            if encoded_by not in (None, found.facts()["weights_sha256"]):
                click.echo(f"note: {latents} was encoded by other weights than these", err=True)
        self.count = 64 if num is None else num
        self.inputs: Any = None
        self.level: int | None = None
        if self.given["source_image"] is not None:
            self._read_images(self.given["source_image"], self.given["level"] or "0.5")

    @property
    def sampler(self) -> dict[str, Any] | None:
        """Defaults of the sampler for options not given; None: those of any sample."""
        if self.latents is not None and self.latents.card:
            card = self.latents.card
            found = {"solver": "ddim", "steps": card.get("steps"), "spacing": card.get("spacing")}
            return found | self.silent
        if self.latents is None and self.given["interpolate"] is None:
            return None
        if self.recommended and self.recommended.get("solver") == "ddim":
            return dict(self.recommended)
        return {"solver": "ddim"}  # the model's recommended sampler may add noise

    def walk(self, sampler: Any) -> Any:
        """The sampler, beginning at the start's level; checked against the schedule."""
        if self.level is not None:
            sampler = replace(sampler, level=self.level)
        sampler.check(self.schedule)
        return sampler

    def make(self, sampler: Any) -> tuple[Any, int]:
        """The start (None for keyed noise) and the number of images."""
        from diptych.generate import starts

        timesteps = sampler.timesteps(self.schedule)
        between = self.given["frames_between"]
        if self.inputs is not None:
            first = self.schedule.level(timesteps[0] if timesteps else -1)
            asked = self.given["level"] or "0.5"
            noised = starts.FromImages(
                self.inputs, self.seed, first, asked, self.preprocess, sampler.noise
            )
            return noised, self.count
        if self.given["interpolate"] is not None:
            starts.refuse_unlike(sampler, self.schedule)
            start = self._arcs(sampler, timesteps[0], 8 if between is None else between)
            return start, len(start.x)
        if self.latents is not None:
            start = starts.from_latents(self.latents, timesteps[0], self.num)
            return start, len(start.x)
        return None, self.count

    def _read_images(self, source: str, level: str) -> None:
        from diptych.generate.inputs import read_inputs
        from diptych.generate.starts import parse_level

        self.level = parse_level(level, self.schedule.timesteps)
        self.inputs = read_inputs(
            [source], self.shape, most=self.count, data_dir=self.data, crop=self.crop
        )

    def _arcs(self, sampler: Any, first: int, between: int) -> Any:
        from diptych.generate import starts

        text = self.given["interpolate"]
        points = starts.parse_points(text, self.seed, self.latents is not None)
        count = (len(points) - 1) * (between + 1) + 1
        if count > MOST:
            raise UserError(f"--interpolate: {count:,} images; {MOST:,} are the most")
        if self.latents is None:
            return starts.between_seeds(points, between, self.shape, sampler.noise)
        numbers = [index for _, index in points]
        return starts.between_latents(self.latents, numbers, between, first)


def _check_together(given: dict[str, Any], num: int | None) -> None:
    if num is not None and num < 1:
        raise UserError(f"--num is {num}; it must be 1 or more")
    image = given["source_image"] is not None
    if image and (given["latents"] is not None or given["interpolate"] is not None):
        raise UserError("--from starts at images, --latents and --interpolate at noise; choose one")
    if given["level"] is not None and not image:
        raise UserError("--level only applies to a given image; add --from IMAGE")
    if given["frames_between"] is not None and given["interpolate"] is None:
        raise UserError("--frames-between only applies to interpolations; add --interpolate 3,7")
    if given["interpolate"] is not None and num is not None:
        raise UserError("--num: --frames-between says how many images an interpolation has")
