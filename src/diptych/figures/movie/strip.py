"""Progressive strips: one row per image, one column per moment of its trajectory, noise first.

A column of timestep t shows x_t and, if asked for, the x0 that the solver predicts from exactly
that x_t. The last column is the final image. Only the rows and moments shown are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.figures.movie.record import SHOWN
from diptych.figures.sheets import save_sheet

ROWS = 8


@dataclass(frozen=True)
class Strip:
    """A strip of the first images: of x_t, of the predicted x0, or of both, at `moments`."""

    show: str = "x_t"
    moments: int = 10

    def __post_init__(self) -> None:
        if self.show not in SHOWN:
            raise UserError(f"--show is '{self.show}'; a picture shows x_t, x0 or both")
        if not 2 <= self.moments <= 40:
            raise UserError(f"--moments is {self.moments}; it must be 2 to 40")

    def chosen(self, steps: int) -> list[int]:
        """The moments shown, spread evenly in 0 .. steps; k is before step k, `steps` the end."""
        return sorted({round(k) for k in np.linspace(0, steps, min(self.moments, steps + 1))})


class StripRecorder:
    """Collects the images of a strip while a batch is generated, and writes the strip."""

    def __init__(self, strip: Strip, timesteps: Sequence[int], rows: int = ROWS) -> None:
        self.strip, self.timesteps, self.rows = strip, list(timesteps), rows
        self.moments = strip.chosen(len(self.timesteps))
        self.x_t: dict[int, Any] = {}
        self.x0: dict[int, Any] = {}

    def start(self, x: Any) -> None:
        """Record the initial noise."""
        self.x_t[0] = x[: self.rows]

    def reached(self, k: int, keep: Any, x: Any) -> None:
        """Record the images after step k; `keep` copies rows so that they outlive the step."""
        if k + 1 in self.moments:
            self.x_t[k + 1] = keep(x[: self.rows])

    def predicted(self, k: int, keep: Any, x0: Any) -> None:
        """Record the x0 predicted in step k."""
        if k in self.moments:
            self.x0[k] = keep(x0[: self.rows])

    def save(self, path: Path, pixels: Any, names: Sequence[str]) -> None:
        """Write the strip as a PNG with the timesteps above and `names` beside the rows.

        `pixels` turns the kept arrays into uint8 images on the host.
        """
        end = len(self.timesteps)
        self.x0[end] = self.x_t[end]
        tables = {"x_t": self.x_t, "x0": self.x0}
        names = names[: self.rows]
        shown = tuple(tables) if self.strip.show == "both" else (self.strip.show,)
        # One array per table: (moments, rows, C, H, W).
        drawn = [np.stack([pixels(tables[name][k]) for k in self.moments]) for name in shown]
        blocks = [table[:, row] for row in range(len(names)) for table in drawn]
        left = [f"{name}  {label}" for name in names for label in shown]
        left = left if self.strip.show == "both" else list(names)
        top = [f"t={self.timesteps[k]}" if k < end else "image" for k in self.moments]
        save_sheet(path, np.stack(blocks), top=top, left=left)
