"""The size of an image in pixels: the side of a square, or height and width.

    64, (64, 64), "64x64"  ->  64              (48, 64), [48, 64], "48x64"  ->  (48, 64)

A square is always one number, so that configs, their hashes and folders of squares are those that
they were before other images could be trained on.
"""

from __future__ import annotations

import re

Size = int | tuple[int, int]  # the side of a square, or (height, width), which differ
LEAST, MOST = 4, 1024  # pixels of a side
EXPECTED = f"expected {LEAST} to {MOST} pixels, or HEIGHTxWIDTH such as 48x64"


def size_of(height: int, width: int) -> Size:
    """The size of images of this height and width."""
    return height if height == width else (height, width)


def sides_of(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def size_text(size: Size) -> str:
    """HEIGHTxWIDTH, as in "48x64"."""
    height, width = sides_of(size)
    return f"{height}x{width}"


def size_option(size: Size) -> str:
    """As options take and show it: "64", or "48x64"."""
    return str(size) if isinstance(size, int) else size_text(size)


def checked_size(value: object) -> Size:
    """A size as it is given: a number, a pair of numbers, or "HEIGHTxWIDTH".

    Raises:
        ValueError: none of these, or a side is out of range.
    """
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", value)):
        value = [int(match[1]), int(match[2])]
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    if len(pair) != 2 or not all(type(n) is int and LEAST <= n <= MOST for n in pair):
        raise ValueError(EXPECTED)
    return size_of(*pair)
