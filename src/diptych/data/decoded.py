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
from typing import Any, Protocol

import numpy as np

from diptych.data.crops import Recipe
from diptych.data.picture import decode
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
        return decode(self.items.read(index), self.items.title(index), self.recipe)

    def identity(self) -> str:
        """Sha256 of the names, the encoded sizes and the recipe; the pixels are not read."""
        digest = hashlib.sha256(f"encoded {self.shape} {self.recipe.crop}\n".encode())
        for index, name in enumerate(self.items.names):
            digest.update(f"{name}\t{self.items.size(index)}\n".encode())
        return digest.hexdigest()


Images = Pixels | Decoded
