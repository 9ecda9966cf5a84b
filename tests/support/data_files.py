"""Small IDX files and a machine without data, for the tests of `diptych.data`."""

from __future__ import annotations

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from diptych.data import SOURCES

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """Encode an array as IDX, independently of the reader."""
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def put(folder: Path, count: int = 5, size: int = 28, packed: bool = True) -> Path:
    """Write a small MNIST of `count` random images to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, size, size), dtype=np.uint8)
    labels = rng.integers(0, 10, count, dtype=np.uint8)
    for name, array in zip(NAMES, (images, labels), strict=True):
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture(name="bare")
def bare_machine(tmp_path, monkeypatch):
    """A machine without data: its own home, cache and working folder."""
    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("DIPTYCH_DATA", raising=False)
    for name in ("mnist", "fashion_mnist"):
        monkeypatch.setitem(SOURCES, name, replace(SOURCES[name], places=()))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path
