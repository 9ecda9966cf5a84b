"""Write weights in the format of `torch.save`, without torch.

    zip, stored: ROOT/data.pkl, ROOT/byteorder, ROOT/data/0 ..., ROOT/version

The pickle names three things: `torch._utils._rebuild_tensor_v2`, a storage's type, and
`OrderedDict`; so `torch.load(path, weights_only=True)` reads it. Arrays keep their dtype and bits.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diptych.files import atomic_path

_TYPES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


def write_torch(path: Path, tree: object) -> None:
    """Write containers, numbers, text and NumPy arrays as `torch.save` would, atomically.

    Args:
        path: the file.
        tree: dicts, lists, tuples, None, bool, int, float, str; arrays become CPU tensors.

    Raises:
        MachineError: the disk is full, or the like.
        TypeError: another type in the tree.
    """
    writer = _Writer()
    content = writer.pickle(tree)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        _store(archive, "data.pkl", content)
        _store(archive, "byteorder", b"little")
        for key, array in enumerate(writer.arrays):
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            _store(archive, f"data/{key}", little.tobytes())
        _store(archive, "version", b"3\n")


def _store(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """Write one entry with a fixed date, so that equal weights make equal files."""
    entry = zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))
    archive.writestr(entry, content)


class _Writer:
    """A writer of pickle protocol 2 instructions; tensors refer to storages by number."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray[Any, Any]] = []

    def pickle(self, tree: object) -> bytes:
        return b"\x80\x02" + self._value(tree) + b"."

    def _value(self, value: object) -> bytes:
        if isinstance(value, np.ndarray):
            return self._tensor(value)
        if isinstance(value, Mapping):
            items = b"".join(self._value(k) + self._value(v) for k, v in value.items())
            return b"}(" + items + b"u"
        if isinstance(value, list):
            return b"](" + b"".join(self._value(item) for item in value) + b"e"
        if isinstance(value, tuple):
            return b"(" + b"".join(self._value(item) for item in value) + b"t"
        if type(value) is str:
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        if value is None or type(value) in (bool, int, float):
            return pickle.dumps(value, 2)[2:-1]
        raise TypeError(f"{type(value).__name__} has no place in a weights file")

    def _tensor(self, array: np.ndarray[Any, Any]) -> bytes:
        kind = _TYPES[array.dtype.str.lstrip("<>|=")]
        key = str(len(self.arrays))
        self.arrays.append(array)
        step, strides = 1, list[int]()
        for length in reversed(array.shape):
            strides.insert(0, step)
            step *= length
        storage = b"(" + self._value("storage") + f"ctorch\n{kind}\n".encode()
        storage += self._value(key) + self._value("cpu") + self._value(array.size) + b"tQ"
        return (
            b"ctorch._utils\n_rebuild_tensor_v2\n("
            + storage
            + self._value(0)
            + self._value(array.shape)
            + self._value(tuple(strides))
            + b"\x89ccollections\nOrderedDict\n)RtR"
        )
