"""Images that stay encoded where they lie and are decoded when a batch asks for them.

    decoded[indices]  ->  (n, C, H, W) uint8, each picture read, cropped and resized by a thread

So a data set larger than memory trains as any other: what a batch holds depends on its indices
alone, whatever the number of threads. Threads suffice, because Pillow releases the interpreter's
lock while it decodes and resizes. What is asked for often is better packed once: `data.pack`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from diptych.data.crops import Recipe
from diptych.data.picture import decode
from diptych.errors import UserError
from diptych.types import Int64, Pixels

CHUNK = 1024  # images at once where all are visited


class Items(Protocol):
    """Encoded pictures in a fixed order: the files of a folder, the records of a database."""

    @property
    def names(self) -> Sequence[str]:
        """A short name for each, unique; part of the identity."""

    @property
    def origin(self) -> str:
        """Where they are, for people."""

    @property
    def crop(self) -> str:
        """The crop recipe that the data set's users apply."""

    @property
    def labels(self) -> Int64 | None:
        """A class for each, or None."""

    def title(self, index: int) -> str:
        """How a message names one picture: its path, or its file and key."""

    def read(self, index: int) -> bytes:
        """The encoded bytes. Raises UserError where they are missing."""

    def size(self, index: int) -> int:
        """How many bytes are encoded, or 0 where that is not known without reading them."""

    def stamp(self, index: int) -> str:
        """A short text that changes when the picture does, made without reading it."""

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The first 64 KiB and the last bytes; None where all would have to be read for that."""


@dataclass(frozen=True)
class Joined:
    """Several sets of pictures one after the other, such as a train and a test split."""

    parts: Sequence[Items]
    prefixes: Sequence[str]  # for the names, which must stay unique

    @property
    def names(self) -> list[str]:
        """The parts' names, each behind its part's prefix."""
        parts = zip(self.prefixes, self.parts, strict=True)
        return [f"{prefix}/{name}" for prefix, items in parts for name in items.names]

    @property
    def origin(self) -> str:
        """The parts' origins, each once."""
        return " and ".join(dict.fromkeys(items.origin for items in self.parts))

    @property
    def crop(self) -> str:
        """The parts' crop, which is one."""
        return self.parts[0].crop

    @property
    def labels(self) -> Int64 | None:
        """All labels, or None where a part has none."""
        held = [items.labels for items in self.parts if items.labels is not None]
        return np.concatenate(held) if len(held) == len(self.parts) else None

    @cached_property
    def _starts(self) -> Int64:
        """The index behind each part's last picture."""
        return np.cumsum([len(items.names) for items in self.parts])

    def _at(self, index: int) -> tuple[Items, int]:
        part = int(np.searchsorted(self._starts, index, side="right"))
        return self.parts[part], index - (int(self._starts[part - 1]) if part else 0)

    def title(self, index: int) -> str:
        """As the part says."""
        items, row = self._at(index)
        return items.title(row)

    def read(self, index: int) -> bytes:
        """As the part does."""
        items, row = self._at(index)
        return items.read(row)

    def size(self, index: int) -> int:
        """As the part says."""
        items, row = self._at(index)
        return items.size(row)

    def stamp(self, index: int) -> str:
        """As the part says."""
        items, row = self._at(index)
        return items.stamp(row)

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """As the part does."""
        items, row = self._at(index)
        return items.ends(row)


@dataclass(frozen=True)
class Chosen:
    """Some of the pictures of a set, such as those that can be used."""

    items: Items
    rows: Sequence[int]

    @property
    def names(self) -> list[str]:
        """The chosen names."""
        names = self.items.names
        return [names[row] for row in self.rows]

    @property
    def origin(self) -> str:
        """Of the whole set."""
        return self.items.origin

    @property
    def crop(self) -> str:
        """Of the whole set."""
        return self.items.crop

    @property
    def labels(self) -> Int64 | None:
        """The chosen labels."""
        labels = self.items.labels
        return None if labels is None else labels[np.array(self.rows, np.int64)]

    def title(self, index: int) -> str:
        """Of a chosen one."""
        return self.items.title(self.rows[index])

    def read(self, index: int) -> bytes:
        """Of a chosen one."""
        return self.items.read(self.rows[index])

    def size(self, index: int) -> int:
        """Of a chosen one."""
        return self.items.size(self.rows[index])

    def stamp(self, index: int) -> str:
        """Of a chosen one."""
        return self.items.stamp(self.rows[index])

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """Of a chosen one."""
        return self.items.ends(self.rows[index])


def as_bytes(name: str) -> bytes:
    """A file's name for a hash: UTF-8, or the bytes themselves of a name that is none."""
    return name.encode("utf-8", "surrogateescape")


def default_workers() -> int:
    """Threads that decode: one a processor, at most 8."""
    return min(8, os.cpu_count() or 1)


class Decoded:
    """Encoded pictures that behave as an array (N, C, H, W) of uint8 for reading."""

    def __init__(self, items: Items, recipe: Recipe, workers: int | None = None) -> None:
        self.items, self.recipe = items, recipe
        self.shape = (len(items.names), recipe.channels, recipe.size, recipe.size)
        self.dtype = np.dtype(np.uint8)
        self.workers = workers or default_workers()
        self.advice = ""  # what to do about a picture that cannot be used, for the error
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Pixels:
        """One image by number, or several by a slice or an array of numbers.

        Raises:
            UserError: a picture that cannot be used, by name.
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
        """Sha256 of the names, the encoded sizes and the recipe; the pixels are not read."""
        digest = hashlib.sha256(f"encoded {self.shape} {self.recipe.crop}\n".encode())
        for index, name in enumerate(self.items.names):
            digest.update(as_bytes(f"{name}\t{self.items.size(index)}\n"))
        return digest.hexdigest()


Images = Pixels | Decoded
