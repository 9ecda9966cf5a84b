"""A look at a source of pictures before settings are chosen: number, sizes, kinds, colour.

Headers of up to HEADERS pictures are read, and up to DECODED pictures are decoded to see whether
they are in colour; both evenly spread. The scan that training makes (`diptych.data.scan`) finds
damage beyond the header.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.decoded import Items, default_workers
from diptych.data.packed.read import read_packed
from diptych.data.picture import open_header, open_picture, size_of
from diptych.data.readers.npz import shape_of
from diptych.data.sources.named import Asked, absolute, open_items
from diptych.data.sources.spec import parse, split_names
from diptych.errors import MachineError, UserError
from diptych.types import Int64

HEADERS, DECODED = 1000, 32
COLOURED = 16  # levels of 255 between two channels of a pixel; less is what JPEG makes of grey
_THUMB = 256  # pixels of the longer side that are enough to see colour


@dataclass(frozen=True)
class Survey:
    """Contents of a source of pictures.

    Attributes:
        source: the source, absolute and with its kind, as a config keeps it.
        images: number of pictures.
        sides: shorter sides in pixels of the pictures whose headers were read, ascending.
        sizes: "WIDTHxHEIGHT" -> number of those, most frequent first.
        kinds: such as "JPEG RGB" -> number of those.
        colour: True if some of the decoded pictures are in colour.
        left_out: files that are no pictures to use, by reason.
        bad: reasons of the looked-at pictures that cannot be used.
        classes: number of classes; 0: none known.
        shape: (C, H, W) of images stored as arrays; None: pictures, which are decoded to any size.
    """

    source: str
    images: int
    sides: Int64
    sizes: dict[str, int]
    kinds: dict[str, int]
    colour: bool
    left_out: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)
    classes: int = 0
    shape: tuple[int, int, int] | None = None

    @property
    def counts(self) -> list[tuple[tuple[int, int], int]]:
        """(width, height) and number of pictures, as in `sizes`."""
        found = []
        for name, count in self.sizes.items():
            width, _, height = name.partition("x")
            found.append(((int(width), int(height)), count))
        return found

    def text(self) -> str:
        """One line for people."""
        looked = len(self.sides) + len(self.bad)
        some = "" if looked == self.images else f" (of {looked:,} looked at)"
        facts = [
            f"{self.images:,} {'image' if self.shape else 'picture'}{'s' * (self.images != 1)}",
            f"{_listed(self.sizes)}{some}",
            f"{_listed(self.kinds)}, {'in colour' if self.colour else 'grey'}",
        ]
        if self.classes:
            facts.append(f"{self.classes} classes")
        if self.bad:
            facts.append(f"{len(self.bad)} cannot be used, the first: {self.bad[0]}")
        return f"{self.source}: {'; '.join(facts)}"


def _listed(counts: dict[str, int], most: int = 3) -> str:
    if len(counts) == 1:
        return f"all {next(iter(counts))}"
    shown = [f"{count:,} {name}" for name, count in list(counts.items())[:most]]
    more = len(counts) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def survey(source: str, split: str = "train", data_dir: Path | None = None) -> Survey:
    """Look at a user's own source of pictures.

    Args:
        source: in the syntax of `diptych.data.sources.spec`.
        split: of an `hf:` source that names none.
        data_dir: the folder, if the source is a kind without a path.

    Raises:
        UserError: nothing there, not pictures, or none of those looked at can be used.
        MachineError: the machine cannot read them.
    """
    spec = parse(source)
    splits = spec.splits or split_names(source, split)
    asked = Asked(source, spec, splits[0], data_dir=data_dir)
    if spec.kind in ("npz", "packed"):
        return _arrays(source, spec.kind, asked.path())
    if len(splits) > 1:
        raise UserError(f"{source}: own pictures are trained on one split; name train or test")
    items = open_items(asked)
    rows = spread(len(items.names), HEADERS)
    bad: list[str] = []
    sizes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    sides: list[int] = []
    with ThreadPoolExecutor(default_workers(), "diptych-survey") as pool:
        for found in pool.map(lambda row: _header(items, row), rows):
            if isinstance(found, str):
                bad.append(found)
                continue
            width, height, kind = found
            sizes[f"{width}x{height}"] += 1
            kinds[kind] += 1
            sides.append(min(width, height))
    if not sides:
        raise UserError(f"{bad[0]} (none of {len(bad)} pictures can be used)")
    labels = items.labels
    return Survey(
        absolute(source),
        len(items.names),
        np.sort(np.array(sides, np.int64)),
        dict(sizes.most_common()),
        dict(kinds.most_common()),
        in_colour(items, spread(len(items.names), DECODED)),
        dict(getattr(items, "left_out", {})),
        bad,
        0 if labels is None else int(labels.max()) + 1,
    )


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers 0 .. count - 1, evenly spread."""
    return [int(row) for row in np.unique(np.linspace(0, count - 1, min(most, count)).astype(int))]


def _header(items: Items, row: int) -> tuple[int, int, str] | str:
    """Width, height and kind of one picture, or the reason why it cannot be used."""
    title = items.title(row)
    ends = items.ends(row)
    try:
        if ends is None:
            picture = open_header(items.read(row), title)
        else:
            try:
                picture = open_header(ends[0], title)
            except UserError:  # some kinds keep their header at the end
                picture = open_header(items.read(row), title)
    except (UserError, MachineError) as error:
        return str(error)
    return (*size_of(picture), f"{picture.format} {picture.mode}")


def in_colour(items: Items, rows: Sequence[int]) -> bool:
    """True if one of these pictures has a pixel whose channels differ by more than COLOURED."""

    def look(row: int) -> bool:
        try:
            picture = open_picture(items.read(row), items.title(row), None)
        except (UserError, MachineError):
            return False
        if picture.mode == "L":
            return False
        pixels = np.asarray(picture.reduce(max(1, max(picture.size) // _THUMB)), np.int16)
        return bool((pixels.max(-1) - pixels.min(-1) > COLOURED).any())

    with ThreadPoolExecutor(default_workers(), "diptych-survey") as pool:
        return any(pool.map(look, rows))


def _arrays(source: str, kind: str, path: Path) -> Survey:
    """A survey of images stored as arrays; only an .npz's header is read."""
    if kind == "packed":
        images, labels, _ = read_packed(path)
        count, channels, height, width = images.shape
        classes = 0 if labels is None else int(labels.max()) + 1
    else:
        count, *rest = shape_of(path)
        if len(rest) == 2:
            rest = [*rest, 1]
        if rest[2] not in (1, 3):
            rest = [rest[1], rest[2], rest[0]]
        (height, width, channels), classes = rest, 0
    sides = np.full(count, min(height, width), np.int64)
    name = f"{kind} array"
    size = f"{width}x{height}"
    return Survey(
        absolute(source),
        count,
        sides,
        {size: count},
        {name: count},
        channels == 3,
        classes=classes,
        shape=(channels, height, width),
    )
