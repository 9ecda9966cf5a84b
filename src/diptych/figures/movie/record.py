"""Animations of a trajectory: choice of frames, file formats, and a check of the disk space.

Frames are written as they are generated, so memory does not grow with their number; the free disk
space is checked before the first network call.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import features

from diptych.errors import UserError
from diptych.figures.movie.gif import gif
from diptych.figures.movie.mp4 import find_ffmpeg, mp4
from diptych.figures.movie.webp import webp
from diptych.types import Pixels

FORMATS = {"gif": gif, "webp": webp, "mp4": mp4}
SHOWN = ("x_t", "x0", "both")
BYTES = {"gif": 1.4, "webp": 1.1, "mp4": 1.1}  # per pixel of noise (per channel, except GIF)
MANY = 20_000
"""Most frames allowed: nearly seven minutes at 20 ms, below which viewers slow down."""


@dataclass(frozen=True)
class Movie:
    """An animation of the first grid, at all steps or at `frames` of them.

    Attributes:
        show: x_t, the predicted x0, or both side by side.
        frames: number of frames; None: one per step.
        formats: keys of `FORMATS`.
    """

    show: str = "x_t"
    frames: int | None = None
    formats: tuple[str, ...] = ("gif",)

    def __post_init__(self) -> None:
        if self.show not in SHOWN:
            raise UserError(f"--show is '{self.show}'; a picture shows x_t, x0 or both")
        if self.frames is not None and self.frames < 1:
            raise UserError(f"--frames is {self.frames}; it must be 1 or more")
        if "mp4" in self.formats:
            find_ffmpeg()
        if "webp" in self.formats and not features.check("webp"):
            raise UserError("this Pillow was built without WebP; use --gif")

    def paths(self, folder: Path) -> list[Path]:
        """The output files, one per format."""
        return [folder / f"trajectory.{name}" for name in self.formats]

    def milliseconds(self, steps: int) -> dict[int, int]:
        """Step -> duration of its frame in ms, for the steps that have one; the last is longer."""
        count = min(self.frames or steps, steps)
        chosen = sorted({round(k) for k in np.linspace(steps - 1, 0, count)})
        each = max(20, min(200, 10 * round(600 / count)))  # 6 s in all; viewers slow below 20 ms
        return dict.fromkeys(chosen[:-1], each) | {steps - 1: 2000}

    def check_room(self, folder: Path, steps: int, shape: tuple[int, int, int]) -> None:
        """Refuse files that could fill the disk, or that are too long to watch.

        Args:
            folder: output folder.
            steps: number of steps of the trajectory.
            shape: shape of the grid, (C, H, W).

        Raises:
            UserError: more than `MANY` frames, or not enough free space.
        """
        frames = len(self.milliseconds(steps))
        if frames > MANY:
            raise UserError(
                f"{frames:,} frames play for {frames * 0.02 / 60:.0f} minutes; "
                f"give fewer, for example --frames 500"
            )
        pixels = frames * shape[1] * shape[2] * (2 if self.show == "both" else 1)
        most = int(
            sum(BYTES[name] * pixels * (1 if name == "gif" else shape[0]) for name in self.formats)
        )
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        if most > free:
            raise UserError(
                f"{folder}: {frames:,} frames may take {most / 1e9:.1f} GB, {free / 1e9:.1f} GB "
                f"are free; give fewer --frames, or --num"
            )


@contextmanager
def record(
    folder: Path, movie: Movie, steps: int, picture: Callable[[Any], Pixels]
) -> Iterator[Callable[[int, list[Any]], None]]:
    """Write a trajectory of `steps` steps: yields `see(k, images)`, to be called after each step.

    Args:
        folder: folder of the files `trajectory.gif` ...
        movie: the frames and formats.
        steps: number of steps of the trajectory.
        picture: images of a step -> one picture (1 or 3, H, W) uint8.

    `see` takes a list: one array of images, or two that are shown side by side.
    """
    stay = movie.milliseconds(steps)
    with ExitStack() as files:
        named = zip(movie.formats, movie.paths(folder), strict=True)
        frames = [files.enter_context(FORMATS[name](path)) for name, path in named]

        def see(k: int, shown: list[Any]) -> None:
            if k in stay:
                whole = np.concatenate([picture(images) for images in shown], axis=2)
                for frame in frames:
                    frame(whole, stay[k])

        yield see
