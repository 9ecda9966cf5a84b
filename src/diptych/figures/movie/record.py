"""A trajectory as an animation: which steps have a frame, in which formats, and whether it fits.

Frames go to the file as they are drawn, so memory does not grow with their number; the disk's room
is asked for before the first network call.
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
BYTES = {"gif": 1.4, "webp": 1.1, "mp4": 1.1}  # of a pixel (a channel's, but in GIF) of noise
MANY = 20_000
"""Frames: at the 20 ms below which viewers slow down, nearly seven minutes."""


@dataclass(frozen=True)
class Movie:
    """An animation of the first grid, at all steps or at `frames` of them.

    Attributes:
        show: x_t, the predicted x0, or both side by side.
        frames: how many; None: one a step.
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
        """The files, one of each format."""
        return [folder / f"trajectory.{name}" for name in self.formats]

    def milliseconds(self, steps: int) -> dict[int, int]:
        """How long the frame of each step that has one stays; the last stays longer."""
        count = min(self.frames or steps, steps)
        chosen = sorted({round(k) for k in np.linspace(steps - 1, 0, count)})
        each = max(20, min(200, 10 * round(600 / count)))  # 6 s in all; viewers slow below 20 ms
        return dict.fromkeys(chosen[:-1], each) | {steps - 1: 2000}

    def check_room(self, folder: Path, steps: int, shape: tuple[int, int, int]) -> None:
        """Raises UserError where the files could fill the disk, or nobody would see their end.

        Args:
            folder: where they go.
            steps: of the trajectory.
            shape: of the grid, (C, H, W).
        """
        frames = len(self.milliseconds(steps))
        if frames > MANY:
            raise UserError(
                f"{frames:,} frames play for {frames * 0.02 / 60:.0f} minutes; "
                f"give fewer, for example --frames 500"
            )
        pixels = frames * shape[1] * shape[2] * (2 if self.show == "both" else 1)
        most = int(sum(BYTES[name] * pixels * (1 if name == "gif" else shape[0])
                       for name in self.formats))  # fmt: skip
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
    """Write a trajectory of `steps` steps: gives `see(k, images)`, to be called after each step.

    Args:
        folder: of the files `trajectory.gif` ...
        movie: which steps have a frame, and the formats.
        steps: of the trajectory.
        picture: images of a step -> one picture (1 or 3, H, W) uint8.

    `see` takes a list of what is shown: one array of images, or two that stand side by side.
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
