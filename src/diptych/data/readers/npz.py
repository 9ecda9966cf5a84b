"""Images in an .npz or .npy file: uint8, (N, H, W, C), (N, H, W) or (N, C, H, W), C = 1 or 3.

The images of an .npz are the array called `images`, `arr_0` (as the official ADM code saves
samples), `samples` or `x`, else the only one of three or four dimensions. Labels are `labels` or
`arr_1`. An .npz is a zip of .npy files; a member can be read as a stream, compressed or not, so a
10 GB file does not need 10 GB of memory. Nothing is unpickled, and the size in a header is checked
against the bytes present before anything of that size is allocated.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.files import look
from diptych.types import Int64, Pixels

NAMES = ("images", "arr_0", "samples", "x")
LABELS = ("labels", "arr_1")
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Header:
    """The header of an .npy stream, and the number of bytes after it."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    held: int

    @property
    def promised(self) -> int:
        """The bytes that shape and type require."""
        return math.prod(self.shape) * self.dtype.itemsize


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape of the images in a file.

    Raises:
        UserError: no such file, no images in it, not uint8, or fewer bytes than its header says.
        MachineError: no permission to read it, or not enough memory.
    """
    with _faults(path), _images(path) as (_, header):
        return header.shape


def stream(path: Path) -> Iterator[Pixels]:
    """Yield the images one by one, (H, W, C) uint8.

    Raises:
        UserError: as `shape_of`, Fortran order, or damage further on.
    """
    with _faults(path), _images(path) as (file, header):
        count, *shape = header.shape
        if header.fortran:
            raise UserError(f"{path}: the images are in Fortran order; expected C order")
        size = math.prod(shape)
        buffered = io.BufferedReader(file, 1 << 20)  # type: ignore[type-var]
        for i in range(count):
            data = buffered.read(size)
            if len(data) < size:
                raise UserError(f"{path}: ends in image {i} of {count}; write it anew")
            yield _channels_last(np.frombuffer(data, np.uint8).reshape(shape))


def read_npz(path: Path) -> tuple[Pixels, Int64 | None]:
    """Read images (N, C, H, W) and labels (N,) or None.

    Raises:
        UserError: as `shape_of`; or labels that do not fit.
    """
    with _faults(path):
        with _images(path) as (file, header):
            data = file.read(header.promised)
            if len(data) < header.promised:
                raise UserError(f"{path}: is cut short; write it anew")
            pixels: Pixels = np.frombuffer(data, np.uint8)
            pixels = pixels.reshape(header.shape, order="F" if header.fortran else "C")
        labels = _labels(path, len(pixels))
    if pixels.ndim == 3:
        return np.ascontiguousarray(pixels[:, None]), labels
    if pixels.shape[3] in _CHANNELS:
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels), labels


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        kind = look(path)
        if kind != "file":
            what = {"": "not found", "folder": "is a folder"}.get(kind, "is not a regular file")
            raise UserError(f"{path}: {what}; give an .npz or .npy file of images")
        yield
    except (UserError, MachineError, GeneratorExit):
        raise
    except PermissionError:
        raise MachineError(f"{path}: may not be read. Check the file's permissions.") from None
    except MemoryError:
        raise MachineError(f"{path}: is too large for this machine's memory") from None
    except Exception as error:  # zipfile, zlib and NumPy's parser raise a dozen types
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: not a readable array file ({said}); write it anew") from None


@contextmanager
def _images(path: Path) -> Iterator[tuple[IO[bytes], Header]]:
    """The stream of the images, positioned at the first pixel, and its checked header."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            header = _header(file, path.stat().st_size)
            _check(path, path.stem, header)
            yield file, header
        return
    with zipfile.ZipFile(path) as archive:
        name = _chosen(path, archive)
        with archive.open(f"{name}.npy") as file:
            header = _header(file, archive.getinfo(f"{name}.npy").file_size)
            _check(path, name, header)
            yield file, header


def _chosen(path: Path, archive: zipfile.ZipFile) -> str:
    """The name of the array in an .npz that holds the images."""
    arrays = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    named = next((name for name in NAMES if name in arrays), None)
    if named is not None:
        return named
    found = []
    for name in arrays:
        with archive.open(f"{name}.npy") as file:
            if len(_header(file, 0).shape) in (3, 4):
                found.append(name)
    if len(found) != 1:
        held = ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:6]) or "nothing"
        raise UserError(
            f"{path}: expected an array 'images', found {held}; write one of uint8, N x H x W x C"
        )
    return found[0]


def _header(file: IO[bytes], length: int) -> Header:
    """Read the header of an .npy stream of `length` bytes."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
    return Header(tuple(int(side) for side in shape), fortran, dtype, length - file.tell())


def _check(path: Path, name: str, header: Header) -> None:
    shape = header.shape
    form = f"'{name}' is {header.dtype} {shape}"
    known = len(shape) == 3 or (
        len(shape) == 4 and (shape[3] in _CHANNELS or shape[1] in _CHANNELS)
    )
    if header.dtype != np.uint8 or not known or min(shape, default=0) < 1:
        raise UserError(
            f"{path}: {form}; expected uint8 pixels 0..255, (N, H, W), (N, H, W, C) or "
            f"(N, C, H, W) with C = 1 or 3"
        )
    if header.held < header.promised:
        whole = max(0, header.held) // math.prod(shape[1:])
        raise UserError(f"{path}: ends in image {whole} of {shape[0]}; write it anew")


def _labels(path: Path, count: int) -> Int64 | None:
    """Read and check the labels of an .npz; None if it has none."""
    if path.suffix.lower() == ".npy":
        return None
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        name = next((each for each in LABELS if f"{each}.npy" in names), None)
        if name is None:
            return None
        with archive.open(f"{name}.npy") as file:
            header = _header(file, archive.getinfo(f"{name}.npy").file_size)
            if header.shape != (count,) or header.dtype.kind not in "iu":
                raise UserError(
                    f"{path}: '{name}' is {header.dtype} {header.shape}, expected {count} integers"
                )
            held = np.frombuffer(file.read(header.promised), header.dtype)
    if len(held) != count or held.min() < 0 or held.max() >= 2**31:
        raise UserError(f"{path}: '{name}' must hold {count} whole numbers of 0 or more")
    return held.astype(np.int64)


def _channels_last(image: Pixels) -> Pixels:
    if image.ndim == 2:
        return image[..., None]
    return image if image.shape[2] in _CHANNELS else image.transpose(1, 2, 0)
