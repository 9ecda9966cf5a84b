"""Progressive strips: a row an image, a column a moment of its trajectory, noise on the left.

Under a column's timestep t stand x_t and, where asked for, the x0 that the solver predicts from
exactly that x_t. The last column is the image drawn. Kept are the rows shown, at the moments shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.movie.record import SHOWN
from diptych.noise import Float32
from diptych.pictures import Pixels
from diptych.sheet import save_sheet

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
        """The moments shown of 0 .. steps, spread evenly; k is before step k, `steps` the end."""
        return sorted({round(k) for k in np.linspace(0, steps, min(self.moments, steps + 1))})


class StripRecorder:
    """Collects what a strip shows while a batch is drawn, and writes it."""

    def __init__(self, strip: Strip, timesteps: Sequence[int], rows: int = ROWS) -> None:
        self.strip, self.timesteps, self.rows = strip, list(timesteps), rows
        self.moments = strip.chosen(len(self.timesteps))
        self.x_t: dict[int, Float32] = {}
        self.x0: dict[int, Float32] = {}

    def start(self, x: Float32) -> None:
        """The first noise, on the host."""
        self.x_t[0] = x[: self.rows]

    def reached(self, k: int, read: Any, x: Any) -> None:
        """Images after step k; `read` brings them to the host."""
        if k + 1 in self.moments:
            self.x_t[k + 1] = read(x[: self.rows])

    def predicted(self, k: int, read: Any, x0: Any) -> None:
        """The image predicted in step k."""
        if k in self.moments:
            self.x0[k] = read(x0[: self.rows])

    def save(self, path: Path, pixels: Any, names: Sequence[str]) -> None:
        """Write the strip as a PNG with its timesteps above and `names` beside the rows."""
        end = len(self.timesteps)
        self.x0[end] = self.x_t[end]
        tables = {"x_t": [("x_t", self.x_t)], "x0": [("x0", self.x0)]}
        tables["both"] = tables["x_t"] + tables["x0"]
        blocks: list[Pixels] = []
        left: list[str] = []
        for row, name in enumerate(names[: self.rows]):
            for label, table in tables[self.strip.show]:
                blocks.append(np.stack([pixels(table[k][row]) for k in self.moments]))
                left.append(f"{name}  {label}" if self.strip.show == "both" else name)
        top = [f"t={self.timesteps[k]}" if k < end else "image" for k in self.moments]
        save_sheet(path, np.stack(blocks), top=top, left=left)
