"""Labelled sheets: images in rows and columns, with words above, beside and below them.

Pixels are repeated, never blended, so a figure shows the network's exact output. The font is
DejaVu Sans, as in every other figure: black on white, softer for explanations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diptych.figures.grids import to_picture
from diptych.files import atomic_path
from diptych.types import Pixels

PAPER, INK, SOFT = "#ffffff", "#1f2328", "#636c76"
LEAST = 56  # pixels per side; smaller images are enlarged
GAP, EDGE, SIZE = 4, 12, 15


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _width(text: str) -> int:
    return int(np.ceil(_font(SIZE).getlength(text)))


def sheet(
    cells: Pixels,
    *,
    top: Sequence[str] = (),
    left: Sequence[str] = (),
    under: Sequence[Sequence[str]] = (),
) -> Image.Image:
    """Lay out a sheet of labelled images.

    Args:
        cells: (rows, columns, C, H, W) uint8, C = 1 or 3.
        top: a word above each column.
        left: a word beside each row.
        under: for each row, a word below each of its images.
    """
    rows, columns, _, height, width = cells.shape
    scale = max(1, -(-LEAST // width))
    high, line = height * scale, SIZE + 7
    words = [*top, *(word for row in under for word in row)]
    wide = max([width * scale, *(_width(word) + 6 for word in words)])
    x0 = EDGE + max([0, *(_width(word) + 10 for word in left)])
    y0 = EDGE + (line if top else 0)
    tall = high + GAP + (line if under else 0)
    size = (x0 + columns * (wide + GAP) - GAP + EDGE, y0 + rows * tall - GAP + EDGE)
    paper = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(paper)
    for column, word in enumerate(top):
        pen.text((x0 + column * (wide + GAP) + wide / 2, EDGE), word, INK, _font(SIZE), "ma")
    for row in range(rows):
        y = y0 + row * tall
        if left:
            pen.text((EDGE, y + high / 2), left[row], INK, _font(SIZE), "lm")
        for column in range(columns):
            x = x0 + column * (wide + GAP)
            picture = to_picture(cells[row, column]).convert("RGB")
            large = picture.resize((width * scale, high), Image.Resampling.NEAREST)
            paper.paste(large, (x + (wide - width * scale) // 2, y))
            if under:
                place = (x + wide / 2, y + high + 3)
                pen.text(place, under[row][column], SOFT, _font(SIZE), "ma")
    return paper


def save_sheet(path: Path, cells: Pixels, **words: Any) -> None:
    """Write a sheet as a PNG, atomically; `words` are the keyword arguments of `sheet`."""
    with atomic_path(path) as temporary:
        sheet(cells, **words).save(temporary, format="PNG")


def save_arcs(path: Path, images: Pixels, points: Sequence[str]) -> None:
    """Write an interpolation as a PNG: one row per arc, including its two named ends.

    Args:
        path: output file.
        images: the whole path, (N, C, H, W) uint8; N - 1 is a multiple of len(points) - 1.
        points: names of the ends.
    """
    arcs = len(points) - 1
    each = (len(images) - 1) // arcs
    cells = np.stack([images[k * each : (k + 1) * each + 1] for k in range(arcs)])
    left = [f"{a} to {b}" for a, b in pairwise(points)]
    top = [f"{k / each:.2f}" for k in range(each + 1)]
    save_sheet(path, cells, top=top, left=left)
