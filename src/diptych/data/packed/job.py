"""A packing job: source, output file, and the settings that identify it when it resumes."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from diptych.data.dataset import Dataset
from diptych.data.decoded import Decoded, as_bytes
from diptych.data.packed.read import FORMAT
from diptych.types import Int64

TODO, DONE, BAD = 0, 1, 2  # a picture's state


@dataclass(frozen=True)
class Packing:
    """A packing job: the data set, the output file and the options."""

    dataset: Dataset
    out: Path
    crop: str
    skip_bad: bool = False
    workers: int | None = None
    progress: bool = True

    @property
    def folder(self) -> Path:
        """The folder of the unfinished file."""
        return self.out.with_name(f".{self.out.name}.partial")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        count, channels, height, width = self.dataset.images.shape
        return count, height, width, channels

    def settings(self) -> dict[str, Any]:
        """The settings that must match for a finished file to be kept."""
        data = self.dataset
        labels = None
        if data.labels is not None:
            labels = hashlib.sha256(data.labels.astype("<i8").tobytes()).hexdigest()
        return {
            "format": FORMAT,
            "source": data.name,
            "split": data.split,
            "crop": self.crop,
            "input": data.sha256,
            "input_shape": list(self.shape),
            "labels_sha256": labels,
        }

    def begun(self) -> dict[str, Any]:
        """The settings that must match to resume; without the pictures' lengths, see `sizes`."""
        names = hashlib.sha256(as_bytes("\n".join(self.names()))).hexdigest()
        own = {"input": names} if isinstance(self.dataset.images, Decoded) else {}
        return {**self.settings(), **own}

    def sizes(self) -> Int64:
        """Each picture's encoded length, which reveals a repaired picture; 0 for arrays."""
        images = self.dataset.images
        if not isinstance(images, Decoded):
            return np.zeros(len(images), np.int64)
        return np.array([images.items.size(k) for k in range(len(images))], np.int64)

    def names(self) -> list[str]:
        """A name for each picture."""
        images = self.dataset.images
        if isinstance(images, Decoded):
            return list(images.items.names)
        return [str(index) for index in range(len(images))]

    @property
    def start(self) -> int:
        """The file offset of the first row."""
        return len(header(self.shape))


def header(shape: tuple[int, int, int, int]) -> bytes:
    """The header of a .npy file of uint8 rows."""
    held = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(held, header)  # type: ignore[no-untyped-call]
    return held.getvalue()
