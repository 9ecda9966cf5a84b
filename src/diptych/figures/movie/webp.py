"""Animated WebP written frame by frame: each frame is an independent still in one container.

    RIFF size WEBP | VP8X flags canvas | ANIM background repeats | ANMF place size stay still | ...

Pillow's own `save_all` collects all frames before it writes any. Here Pillow encodes one still, and
its data chunk is written at once. Only the RIFF size, at the start of the file, is written last.
Container: RFC 9649, sections 2.7.1.1 and 2.7.1.2.

Lossless, because a lossy WebP halves the colour resolution, which would change colour noise.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from diptych.errors import UserError
from diptych.figures.grids import to_picture
from diptych.files import atomic_path
from diptych.types import Pixels

EFFORT = {"lossless": True, "quality": 50, "method": 2}  # a fifth smaller than the fastest
LONGEST = 2**32 - 2**20  # bytes; the size field has 32 bits
WIDEST = 16383  # pixels, the limit of a still
ANIMATED, KEEP_AND_REPLACE = 0x02, 0x02
PICTURES = (b"VP8 ", b"VP8L", b"ALPH")


@contextmanager
def webp(path: Path) -> Iterator[Callable[[Pixels, int], None]]:
    """Write an animated WebP atomically: yields `frame(picture, milliseconds)`.

    Pictures are (1 or 3, H, W) uint8, all of one shape.

    Raises:
        UserError: a side longer than a WebP allows, or a file of more than 4 GB.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        shapes: list[tuple[int, ...]] = []

        def frame(picture: Pixels, milliseconds: int) -> None:
            if not shapes:
                shapes.append(picture.shape)
                _begin(file, path, picture)
            if picture.shape != shapes[0]:
                raise ValueError(f"a frame is {picture.shape}, the first one {shapes[0]}")
            file.write(_frame(picture, milliseconds))
            if file.tell() > LONGEST:
                raise UserError(f"{path}: a WebP ends at 4 GB; give fewer --frames")

        yield frame
        if not shapes:
            raise ValueError(f"{path}: a WebP needs a frame")
        size = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))


def _begin(file: BinaryIO, path: Path, picture: Pixels) -> None:
    _, height, width = picture.shape
    if max(height, width) > WIDEST:
        raise UserError(f"{path}: {width}x{height} pixels; a WebP allows at most {WIDEST} per side")
    canvas = struct.pack("<I", ANIMATED) + _three(width - 1) + _three(height - 1)
    anim = struct.pack("<IH", 0xFFFFFFFF, 0)  # white background; loops forever
    file.write(b"RIFF\0\0\0\0WEBP" + _chunk(b"VP8X", canvas) + _chunk(b"ANIM", anim))


def _frame(picture: Pixels, milliseconds: int) -> bytes:
    _, height, width = picture.shape
    head = _three(0) + _three(0) + _three(width - 1) + _three(height - 1) + _three(milliseconds)
    return _chunk(b"ANMF", head + bytes([KEEP_AND_REPLACE]) + _still(picture))


def _still(picture: Pixels) -> bytes:
    """The data chunks of one picture encoded by Pillow, without the container."""
    whole = io.BytesIO()
    to_picture(picture).save(whole, format="WEBP", **EFFORT)
    data, at, found = whole.getvalue(), 12, b""
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at + 4)
        end = at + 8 + size + size % 2
        found += data[at:end] if data[at : at + 4] in PICTURES else b""
        at = end
    return found


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _three(value: int) -> bytes:
    return struct.pack("<I", value)[:3]
