"""Pictures of a Hugging Face data set: parquet files, an image folder, or a name on their hub.

    hf:PATH      a folder with parquet files (their names give the split), or an image folder
    hf:NAME      a data set that their library finds, in its cache or on the hub

Reading needs the package `datasets` (diptych[hf]). The first column of pictures is used, with its
stored encoding, and the first column of class labels.
"""

from __future__ import annotations

import importlib
import logging
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.files import look, read_bytes
from diptych.machine.packages import require
from diptych.types import Int64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """The rows of a table with one column of encoded pictures."""

    table: Any = field(repr=False)
    column: str
    origin: str
    labels: Int64 | None = field(repr=False)
    crop: str = "center"

    @property
    def names(self) -> list[str]:
        """The rows' numbers."""
        return [str(row) for row in range(len(self.table))]

    def title(self, index: int) -> str:
        """The data set and the row."""
        return f"{self.origin}: row {index}"

    def read(self, index: int) -> bytes:
        """Read the encoded bytes of one row, or of the file that it names."""
        held = self.table[int(index)][self.column]
        data, path = (held or {}).get("bytes"), (held or {}).get("path")
        if data is not None:
            return bytes(data)
        if path and look(Path(path)) == "file":
            return read_bytes(Path(path), "a picture")
        raise UserError(f"{self.title(index)} holds no picture; leave the row out")

    def size(self, index: int) -> int:
        """Number of encoded bytes: names are only numbers, so lengths distinguish data sets."""
        return int(self._lengths[index])

    @cached_property
    def _lengths(self) -> Int64:
        """The encoded length of each row, by the table's offsets: no picture in it is read."""
        compute = importlib.import_module("pyarrow.compute")
        found = np.zeros(len(self.table), np.int64)
        at = 0
        for part in self.table.with_format("arrow").iter(10_000):
            held = compute.struct_field(part[self.column], "bytes")
            lengths = compute.fill_null(compute.binary_length(held), -1).to_numpy()
            found[at : at + len(lengths)] = lengths
            at += len(lengths)
        for index in np.flatnonzero(found < 0):  # a path in place of the bytes
            found[index] = len(self.read(int(index)))
        return found

    def stamp(self, index: int) -> str:
        """Their library's fingerprint of the table."""
        return str(getattr(self.table, "_fingerprint", ""))

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """None: a record is read whole or not at all."""
        return None


def _labels(given: Any, name: str) -> Int64 | None:
    """Class labels; None if some rows have none, which their library marks by -1."""
    labels = np.array(given, dtype=np.int64)
    without = int((labels < 0).sum())
    if without:
        log.warning("hf:%s: %d of %d rows have no label; none is used", name, without, len(labels))
    return None if without else labels


def open_huggingface(name: str, split: str) -> Rows:
    """Open the pictures of one split.

    Raises:
        UserError: `datasets` is not installed, or cannot read pictures from it.
    """
    datasets = require("datasets", "hf", where=f"hf:{name}")
    try:
        table = _load(datasets, Path(name), name, split)
        columns = dict(table.features)
        pictures = [key for key, kind in columns.items() if isinstance(kind, datasets.Image)]
        if not pictures or not len(table):
            raise ValueError(f"no column of pictures among {', '.join(columns) or 'none'}")
        classes = [key for key, kind in columns.items() if isinstance(kind, datasets.ClassLabel)]
        labels = _labels(table[classes[0]], name) if classes else None
        table = table.cast_column(pictures[0], datasets.Image(decode=False))
    except Exception as error:  # their library raises dozens of its own and others' exceptions
        said = " ".join(str(error).split())[:200]
        raise UserError(f"hf:{name}: cannot be read ({type(error).__name__}: {said})") from None
    return Rows(table, pictures[0], f"hf:{name} ({split})", labels)


OTHER_SPLITS = {"test", "validation", "valid", "val", "dev", "eval"}


def _words(root: Path, file: str) -> set[str]:
    """The words of a file's path below the root: `train/0000.parquet`, `test-00-of-01.parquet`."""
    return set(re.split(r"[^a-z0-9]+", Path(file).relative_to(root).as_posix().lower()))


def _load(datasets: Any, path: Path, name: str, split: str) -> Any:
    """Load a split with their library; a parquet file's name or folder gives its split."""
    if look(path) != "folder":
        return datasets.load_dataset(name, split=split)
    parquet = sorted(str(file) for file in path.rglob("*.parquet"))
    if not parquet:
        return datasets.load_dataset("imagefolder", data_dir=str(path), split=split)
    words = {file: _words(path, file) for file in parquet}
    chosen = [file for file in parquet if split in words[file]]
    if not chosen and split == "train":
        chosen = [file for file in parquet if not words[file] & OTHER_SPLITS]
    if not chosen:
        raise ValueError(f"no parquet file has '{split}' as a word of its name or of its folder's")
    return datasets.load_dataset("parquet", data_files={split: chosen}, split=split)
