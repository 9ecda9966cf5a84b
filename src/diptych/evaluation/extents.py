"""Images of a set: runs of images of a source, for finding those that count twice.

SHA256              all images of a source
SHA256[100:200]     its images 100 .. 199
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

_CUT = re.compile(r"(.*)\[(\d{1,15}):(\d{1,15})\]", re.DOTALL)


@dataclass(frozen=True, order=True)
class Extent:
    """The images `first` .. `last` - 1 of the source that `name` identifies."""

    name: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.name}[{self.first}:{self.last}]"


def extent(text: str, count: int) -> Extent:
    """The extent that a text names; `count` images from 0 on if it names no range."""
    found = _CUT.fullmatch(text)
    return Extent(found[1], int(found[2]), int(found[3])) if found else Extent(text, 0, count)


def overlap(extents: Iterable[Extent]) -> Extent | None:
    """The first extent that shares images with another one; None if there is none."""
    for one, other in pairwise(sorted(extents)):
        if one.name == other.name and other.first < one.last:
            return other
    return None
