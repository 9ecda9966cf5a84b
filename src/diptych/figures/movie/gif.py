"""Animated GIFs written frame by frame, so memory does not grow with their length.

The whole file has one fixed palette, so each frame can be written before the next is known: all
256 greys (exact), or for colour 6 x 7 x 6 levels of red, green and blue. A colour frame is a table
look-up; its largest error is 25 of 255 (21 in green), its mean error 12.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from diptych.files import atomic_path
from diptych.types import Pixels

LEVELS = (6, 7, 6)
REPEAT = b"!\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # loops forever


def palette(channels: int) -> Pixels:
    """The 256 colours of a file, (256, 3) uint8."""
    if channels == 1:
        greys: Pixels = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
        return greys
    axes = [np.rint(np.linspace(0, 255, n)) for n in LEVELS]
    colours = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    table: Pixels = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours
    return table


def _tables() -> list[Pixels]:
    """One table per channel: value -> its part of the palette index."""
    values, strides = np.arange(256), (LEVELS[1] * LEVELS[2], LEVELS[2], 1)
    return [
        (np.rint(values * (n - 1) / 255) * stride).astype(np.uint8)
        for n, stride in zip(LEVELS, strides, strict=True)
    ]


TABLES = _tables()


def indices(picture: Pixels) -> Pixels:
    """Palette indices (H, W) of a picture (1 or 3, H, W)."""
    if len(picture) == 1:
        grey: Pixels = picture[0]
        return grey
    red, green, blue = (table[channel] for table, channel in zip(TABLES, picture, strict=True))
    index: Pixels = red + green + blue
    return index


@contextmanager
def gif(path: Path) -> Iterator[Callable[[Pixels, int], None]]:
    """Write a GIF atomically: yields `frame(picture, milliseconds)`, to be called once per frame.

    Pictures are (1 or 3, H, W) uint8, all of one shape. Without a frame, nothing is written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        shapes: list[tuple[int, ...]] = []

        def frame(picture: Pixels, milliseconds: int) -> None:
            if not shapes:
                shapes.append(picture.shape)
                _begin(file, picture)
            if picture.shape != shapes[0]:
                raise ValueError(f"a frame is {picture.shape}, the first one {shapes[0]}")
            delay = struct.pack("<H", round(milliseconds / 10))
            file.write(b"!\xf9\x04\x04" + delay + b"\x00\x00" + _coded(indices(picture)))

        yield frame
        if not shapes:
            raise ValueError(f"{path}: a GIF needs a frame")
        file.write(b";")


def _coded(pixels: Pixels) -> bytes:
    """One frame: its descriptor and compressed pixels, without a local colour table.

    Pillow's `save` makes a whole file, whose middle is the frame. (Its `getdata` gives only the
    frame, but keeps every frame alive until the next garbage collection.)
    """
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, format="GIF", optimize=False, interlace=0)
    data = whole.getvalue()
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while data[at] == 0x21:  # extensions
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    if data[at] != 0x2C or data[at + 9] & 0x80:
        raise ValueError("Pillow wrote a GIF frame in an unexpected form")
    return data[at:-1]


def _begin(file: BinaryIO, picture: Pixels) -> None:
    channels, height, width = picture.shape
    # 0xF7: a global table of 256 colours, 8 bits each.
    file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0))
    file.write(palette(channels).tobytes() + REPEAT)
