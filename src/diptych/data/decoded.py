"""Images that stay encoded in storage and are decoded when a batch needs them.

    decoded[indices]  ->  (n, C, H, W) uint8, each picture read, cropped and resized by a thread

So a data set larger than memory trains like any other: a batch's content depends only on its
indices, whatever the number of threads. Threads suffice because Pillow releases the GIL while it
decodes and resizes. A data set that is used often is better packed once: `data.packed`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from diptych.data.crops import Recipe
from diptych.data.picture import decode
from diptych.errors import UserError
from diptych.machine.processor import cores
from diptych.types import Int64, Pixels

CHUNK = 1024  # images per read when all are visited


class Items(Protocol):
    """Encoded pictures in a fixed order: the files of a folder, the records of a database."""

    @property
    def names(self) -> Sequence[str]:
        """A short name for each, unique; part of the identity."""

    @property
    def origin(self) -> str:
        """The place where they are stored, for people."""

    @property
    def crop(self) -> str:
        """The crop recipe that is customary for the data set."""

    @property
    def labels(self) -> Int64 | None:
        """A class for each, or None."""

    def title(self, index: int) -> str:
        """The name of one picture in messages: its path, or its file and key."""

    def read(self, index: int) -> bytes:
        """Read the encoded bytes. Raises UserError if they are missing."""

    def size(self, index: int) -> int:
        """Number of encoded bytes; may be 0 if unknown without reading them."""

    def stamp(self, index: int) -> str:
        """A short text that changes when the picture does, made without reading it."""

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The first 64 KiB and the last bytes; None if that would require reading all of them."""


@dataclass(frozen=True)
class Joined:
    """A concatenation of several sets of pictures, such as a train and a test split."""

    parts: Sequence[Items]
    prefixes: Sequence[str]  # for the names, which must stay unique

    @property
    def names(self) -> list[str]:
        """The parts' names, each after its part's prefix."""
        parts = zip(self.prefixes, self.parts, strict=True)
        return [f"{prefix}/{name}" for prefix, items in parts for name in items.names]

    @property
    def origin(self) -> str:
        """The parts' origins, each once."""
        return " and ".join(dict.fromkeys(items.origin for items in self.parts))

    @property
    def crop(self) -> str:
        """The first part's crop; all parts share it."""
        return self.parts[0].crop

    @property
    def labels(self) -> Int64 | None:
        """All labels, or None if a part has none."""
        held = [items.labels for items in self.parts if items.labels is not None]
        return np.concatenate(held) if len(held) == len(self.parts) else None

    @cached_property
    def _starts(self) -> Int64:
        """The index after each part's last picture."""
        return np.cumsum([len(items.names) for items in self.parts])

    def _at(self, index: int) -> tuple[Items, int]:
        part = int(np.searchsorted(self._starts, index, side="right"))
        return self.parts[part], index - (int(self._starts[part - 1]) if part else 0)

    def title(self, index: int) -> str:
        """The picture's title in its part."""
        items, row = self._at(index)
        return items.title(row)

    def read(self, index: int) -> bytes:
        """Read the picture from its part."""
        items, row = self._at(index)
        return items.read(row)

    def size(self, index: int) -> int:
        """The picture's size in its part."""
        items, row = self._at(index)
        return items.size(row)

    def stamp(self, index: int) -> str:
        """The picture's stamp in its part."""
        items, row = self._at(index)
        return items.stamp(row)

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The picture's ends in its part."""
        items, row = self._at(index)
        return items.ends(row)


@dataclass(frozen=True)
class Chosen:
    """A subset of a set of pictures, such as those that can be used."""

    items: Items
    rows: Sequence[int]

    @property
    def names(self) -> list[str]:
        """The chosen names."""
        names = self.items.names
        return [names[row] for row in self.rows]

    @property
    def origin(self) -> str:
        """The origin of the whole set."""
        return self.items.origin

    @property
    def crop(self) -> str:
        """The crop of the whole set."""
        return self.items.crop

    @property
    def labels(self) -> Int64 | None:
        """The chosen labels."""
        labels = self.items.labels
        return None if labels is None else labels[np.array(self.rows, np.int64)]

    def title(self, index: int) -> str:
        """The title of a chosen picture."""
        return self.items.title(self.rows[index])

    def read(self, index: int) -> bytes:
        """Read a chosen picture."""
        return self.items.read(self.rows[index])

    def size(self, index: int) -> int:
        """The size of a chosen picture."""
        return self.items.size(self.rows[index])

    def stamp(self, index: int) -> str:
        """The stamp of a chosen picture."""
        return self.items.stamp(self.rows[index])

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The ends of a chosen picture."""
        return self.items.ends(self.rows[index])


def as_bytes(name: str) -> bytes:
    """Encode a file name for a hash: as UTF-8, or as its raw bytes if it is not valid UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def default_workers() -> int:
    """Number of decoding threads: one per usable core, at most 8."""
    return min(8, cores())


class Decoded:
    """Encoded pictures that read like a uint8 array (N, C, H, W)."""

    def __init__(self, items: Items, recipe: Recipe, workers: int | None = None) -> None:
        self.items, self.recipe = items, recipe
        self.shape = (len(items.names), recipe.channels, *recipe.sides)
        self.dtype = np.dtype(np.uint8)
        self.workers = workers or default_workers()
        self.advice = ""  # appended to the error of a picture that cannot be used
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Pixels:
        """One image by number, or several by a slice or an array of numbers.

        Raises:
            UserError: a picture cannot be used; the message names it.
        """
        if isinstance(index, (int, np.integer)):
            return self.one(range(len(self))[int(index)])
        chosen = np.arange(len(self))[index]
        out = np.empty((len(chosen), *self.shape[1:]), np.uint8)

        def fill(row: int) -> None:
            out[row] = self.one(int(chosen[row]))

        if len(chosen) < 2 or self.workers == 1:
            for row in range(len(chosen)):
                fill(row)
        else:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers, "diptych-decode")
            for _ in self._pool.map(fill, range(len(chosen))):
                pass
        return out

    def __iter__(self) -> Iterator[Pixels]:
        for first in range(0, len(self), CHUNK):
            yield from self[first : first + CHUNK]

    def one(self, index: int) -> Pixels:
        """One image, (C, H, W)."""
        try:
            return decode(self.items.read(index), self.items.title(index), self.recipe)
        except UserError as error:
            if not self.advice:
                raise
            raise UserError(f"{error}; or {self.advice}") from None

    def identity(self) -> str:
        """SHA-256 of the names, the encoded sizes and the recipe; the pixels are not decoded."""
        digest = hashlib.sha256(f"encoded {self.shape} {self.recipe.crop}\n".encode())
        for index, name in enumerate(self.items.names):
            digest.update(as_bytes(f"{name}\t{self.items.size(index)}\n"))
        return digest.hexdigest()


Images = Pixels | Decoded
