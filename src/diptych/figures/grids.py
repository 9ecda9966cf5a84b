"""Grids and strips of images as PNG files; images are uint8, (N, C, H, W)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from diptych.files import atomic_path
from diptych.types import Pixels


def to_picture(image: Pixels) -> Image.Image:
    """One image (C, H, W) with 1 or 3 channels as a Pillow image."""
    return Image.fromarray(image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0))


def grid(images: Pixels, columns: int | None = None, gap: int = 2) -> Pixels:
    """Tile images (N, C, H, W) into one picture (C, height, width) with white gaps.

    The grid is as square as N allows (64 gives 8x8) unless `columns` is given; cells after the
    last image stay white. `gap` is in pixels.
    """
    count, channels, height, width = images.shape
    columns = columns or max(1, int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    sheet = np.full(
        (channels, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, np.uint8
    )
    for i, image in enumerate(images):
        top = gap + i // columns * (height + gap)
        left = gap + i % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def save_png(path: Path, image: Pixels, scale: int = 1) -> None:
    """Write one picture (C, H, W) atomically; `scale` repeats each pixel."""
    picture = to_picture(image)
    if scale > 1:
        picture = picture.resize(
            (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
        )
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def read_png(path: Path) -> Pixels:
    """Read a PNG written by `save_png`, as (C, H, W) uint8."""
    with Image.open(path, formats=["PNG"]) as picture:
        if picture.mode not in ("L", "RGB"):
            raise ValueError(f"a PNG of mode {picture.mode}")
        array = np.asarray(picture)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
