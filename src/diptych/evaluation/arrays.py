"""Images of an npz or npy file, read a few at a time: a 10-GB file needs no 10 GB of memory.

An npz is a zip of npy files; a member can be read as a stream, whether compressed or not.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from diptych.errors import UserError
from diptych.types import Pixels

NAMES = ("images", "arr_0", "samples", "x")


@contextmanager
def _member(path: Path) -> Iterator[IO[bytes]]:
    """The npy stream of the images in a file."""
    if path.suffix == ".npy":
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive:
        members = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = next((name for name in NAMES if name in members), None)
        if chosen is None and len(members) == 1:
            chosen = members[0]
        if chosen is None:
            raise UserError(
                f"{path}: holds {', '.join(members[:6]) or 'nothing'}; expected the images under "
                f"the name '{NAMES[0]}' (uint8, N x H x W x C)"
            )
        with archive.open(f"{chosen}.npy") as file:
            yield file


def _header(path: Path, file: IO[bytes]) -> tuple[int, ...]:
    """The shape, with the stream left at the first pixel."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    if dtype != np.uint8 or fortran:
        raise UserError(
            f"{path}: the images are {dtype}{' in Fortran order' * fortran}; expected uint8 "
            f"pixels 0..255 in C order"
        )
    known = len(shape) == 3 or (len(shape) == 4 and (shape[3] in (1, 3) or shape[1] in (1, 3)))
    if not known or 0 in shape:
        raise UserError(
            f"{path}: the images are {shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) "
            f"with C = 1 or 3"
        )
    return tuple(shape)


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.zlib.error) as e:  # type: ignore[attr-defined]
        raise UserError(f"{path}: not a readable array file ({e}); write it anew") from e


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape of the images in a file.

    Raises:
        UserError: no npz or npy, no images in it, or not uint8.
    """
    with _faults(path), _member(path) as file:
        return _header(path, file)


def stream(path: Path) -> Iterator[Pixels]:
    """The images one after the other, (H, W, C) uint8.

    Raises:
        UserError: as `shape_of`, or the file ends early.
    """
    with _faults(path), _member(path) as file:
        count, *shape = _header(path, file)
        size = int(np.prod(shape))
        buffered = io.BufferedReader(file, 1 << 20)  # type: ignore[type-var]
        for i in range(count):
            data = buffered.read(size)
            if len(data) < size:
                raise UserError(f"{path}: ends in image {i} of {count}; write it anew")
            yield _channels_last(np.frombuffer(data, np.uint8).reshape(shape))


def _channels_last(image: Pixels) -> Pixels:
    if image.ndim == 2:
        return image[..., None]
    return image if image.shape[2] in (1, 3) else image.transpose(1, 2, 0)
