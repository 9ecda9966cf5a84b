"""The difference of two sample folders, as one picture and as numbers.

    python -m diptych.study.reproduce.difference SAMPLES_A SAMPLES_B

Writes difference.png (grid A, grid B, |A - B| as grey levels from white) and difference.json into
the current folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.figures.grids import grid, read_png, save_png
from diptych.files import write_json
from diptych.report.numbers.images import difference_picture, pixel_numbers
from diptych.runs.records import Difference
from diptych.study.reproduce.alone import in_one_line
from diptych.types import Pixels

GAP = 8
SHOWN = 64


def difference(a: Pixels, b: Pixels) -> tuple[Pixels, dict[str, Any]]:
    """The picture (C, H, W) and the numbers for two sets (N, C, H, W), all uint8.

    Raises:
        UserError: the sets have different shapes.
    """
    if a.shape != b.shape:
        raise UserError(f"the two sample sets have shapes {a.shape} and {b.shape}; draw them alike")
    inverted: Pixels = (255 - difference_picture(a, b)).astype(np.uint8)
    sheets = [grid(images[:SHOWN], columns=8) for images in (a, b, inverted)]
    between = np.full((*sheets[0].shape[:2], GAP), 255, np.uint8)
    picture = np.concatenate([sheets[0], between, sheets[1], between, sheets[2]], axis=2)
    return picture, {"schema": 1, "kind": "difference", **pixel_numbers(a, b)}


def read_set(folder: Path) -> Pixels:
    """Read all numbered images of a sample folder, (N, C, H, W) uint8."""
    paths = sorted(path for path in folder.glob("[0-9]*.png") if path.stem.isdigit())
    if not paths:
        raise UserError(f"{folder}: holds no images; give a folder of `diptych sample`")
    return np.stack([read_png(path) for path in paths])


def main() -> None:
    """Run the command in the module's docstring."""
    first, second = (Path(word) for word in sys.argv[1:3])
    with in_one_line():
        picture, numbers = difference(read_set(first), read_set(second))
        save_png(Path("difference.png"), picture, scale=2)
        write_json(Path("difference.json"), Difference.checked(numbers))


if __name__ == "__main__":
    main()
