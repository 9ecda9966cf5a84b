"""Observers of the first batch: progress picture, strip, animations.

Each keeps only what it shows: animations write every frame immediately, strips hold the rows and
moments that they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.figures.grids import grid, save_png
from diptych.figures.movie import FORMATS, Movie, Strip, StripRecorder, record
from diptych.sampling.denoiser import Observer
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import Sampler
from diptych.types import Float32, Pixels

PROGRESS_ROWS, PROGRESS_COLUMNS = 8, 10
COLUMNS, SHOWN = 8, 64  # columns and images of an animation's grid
STRIP = "strip.png"


@dataclass(frozen=True)
class Pictures:
    """The requested pictures of a trajectory, in addition to `progress.png`."""

    movie: Movie | None = None
    strip: Strip | None = None

    def card(self) -> dict[str, Any]:
        """Settings of the requested pictures, by name."""
        asked = {"movie": self.movie, "strip": self.strip}
        # Formats are left out: each is a separate file, which can be added or missing.
        return {
            name: {key: value for key, value in asdict(one).items() if key != "formats"}
            for name, one in asked.items()
            if one is not None
        }

    def paths_of(self, name: str, out: Path) -> list[Path]:
        """The possible files of one picture."""
        if name == "strip":
            return [out / STRIP]
        return [out / f"trajectory.{kind}" for kind in FORMATS]

    def paths(self, out: Path) -> list[Path]:
        """The requested files."""
        strips = [out / STRIP] if self.strip is not None else []
        return strips + (self.movie.paths(out) if self.movie is not None else [])

    @property
    def of_x0(self) -> bool:
        """True if any picture shows the predicted image."""
        return any(one is not None and one.show != "x_t" for one in (self.movie, self.strip))

    def check(self, engine: Engine, sampler: Sampler, num: int, out: Path) -> None:
        """Raise UserError if there is nothing to show, or no room for it."""
        steps = len(sampler.timesteps(engine.schedule))
        if steps == 0 and (self.movie is not None or self.strip is not None):
            raise UserError("at level 0 nothing is drawn, so there is no trajectory to show")
        if self.movie is not None:
            blank = np.zeros((min(SHOWN, num), *engine.shape), np.uint8)
            channels, height, width = grid(blank, columns=COLUMNS).shape
            self.movie.check_room(out, steps, (channels, height, width))


class Watch:
    """An observer of every step of the first batch; `predicted` is None if no picture shows x0."""

    def __init__(
        self, engine: Engine, sampler: Sampler, asked: Pictures, start: Float32, film: Any
    ) -> None:
        self.backend, self.film, self.asked = engine.backend, film, asked
        self.pixels = engine.pixels
        timesteps = sampler.timesteps(engine.schedule)
        self.moments = _Moments(len(timesteps))
        self.strip = StripRecorder(asked.strip, timesteps) if asked.strip is not None else None
        if self.strip is not None:
            self.strip.start(engine.backend.array(start))
        self.newest: Any = None
        self.predicted: Observer | None = self._predicted if asked.of_x0 else None

    def _keep(self, rows: Any) -> Any:
        """Copy rows on the device; the loop does not wait, and the whole batch can be freed."""
        kept = 1.0 * rows
        self.backend.submit(kept)
        return kept

    def observe(self, k: int, level: Level, x: Any) -> None:
        """Record the images after step k."""
        self.moments.see(k, self._keep, x)
        if self.strip is not None:
            self.strip.reached(k, self._keep, x)
        show = self.asked.movie.show if self.asked.movie is not None else None
        if show == "x_t":
            self.film(k, [x])
        self.newest = x if show == "both" else None

    def _predicted(self, k: int, level: Level, x0: Any) -> None:
        if self.strip is not None:
            self.strip.predicted(k, self._keep, x0)
        show = self.asked.movie.show if self.asked.movie is not None else None
        if show in ("x0", "both"):
            self.film(k, [x0] if show == "x0" else [self.newest, x0])

    def save(self, out: Path, num: int) -> None:
        """Write the pictures that are only complete after the last step."""
        if self.moments.columns:
            save_png(out / "progress.png", self.moments.picture(self._pixels), scale=2)
        if self.strip is not None:
            rows = min(num, len(self.strip.x_t[0]))
            self.strip.save(out / STRIP, self._pixels, [str(i) for i in range(rows)])

    def _pixels(self, kept: Any) -> Pixels:
        return self.pixels(self.backend.numpy(kept))


@contextmanager
def watching(
    engine: Engine, sampler: Sampler, asked: Pictures, start: Float32, out: Path, num: int
) -> Iterator[Watch]:
    """A `Watch` for one batch; its files are written if the block ends without an error."""

    def picture(x: Any) -> Pixels:
        return grid(engine.pixels(engine.backend.numpy(x[: min(SHOWN, num)])), columns=COLUMNS)

    if asked.movie is None:
        watch = Watch(engine, sampler, asked, start, None)
        yield watch
    else:
        steps = len(sampler.timesteps(engine.schedule))
        with record(out, asked.movie, steps, picture) as film:
            watch = Watch(engine, sampler, asked, start, film)
            yield watch
    watch.save(out, num)


class _Moments:
    """The first rows at evenly spread steps, for the progress picture."""

    def __init__(self, steps: int) -> None:
        columns = min(PROGRESS_COLUMNS, steps)
        self.steps = {round(k) for k in np.linspace(0, steps - 1, columns)}
        self.columns: list[Any] = []

    def see(self, k: int, keep: Callable[[Any], Any], x: Any) -> None:
        if k in self.steps:
            self.columns.append(keep(x[:PROGRESS_ROWS]))

    def picture(self, pixels: Callable[[Any], Pixels]) -> Pixels:
        rows = np.stack([pixels(column) for column in self.columns], axis=1)
        return grid(rows.reshape(-1, *rows.shape[2:]), columns=len(self.columns))
