"""IDX files, the format of MNIST: a self-describing header, then the values.

    0x00 0x00 TYPE NDIM | NDIM sizes, uint32 big-endian | the values, row-major

The format is described on the MNIST page (http://yann.lecun.com/exdb/mnist/). Only unsigned bytes
(TYPE 0x08) are read here: images have NDIM 3, labels NDIM 1. A file may be compressed with gzip;
its content decides, not its name, because files are often renamed. A file whose size differs from
its header's by even one byte is refused.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.files import read_bytes
from diptych.types import Pixels

UINT8 = 0x08
_REPLACE = "Replace it with a sound copy."
_MOST = 1032  # the largest expansion of deflate: bytes per compressed byte


def read_idx(path: Path, ndim: int) -> Pixels:
    """Read the values of an IDX file of unsigned bytes, gzip or raw.

    Args:
        path: the file.
        ndim: the required number of dimensions: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        uint8 array of `ndim` dimensions, none of them 0; read-only, because it views the bytes.

    Raises:
        UserError: missing, a folder, empty, damaged gzip, another magic number, type or number
            of dimensions, or more or fewer bytes than the header promises.
        MachineError: the file exists, but the machine cannot read it.
    """
    content = _content(path, ndim)
    shape = _shape(path, content, ndim)
    start = 4 + 4 * ndim
    promised, found = math.prod(shape), len(content) - start
    if found != promised:
        fault = "cut short" if found < promised else "followed by bytes that do not belong to it"
        raise UserError(
            f"{path}: the data are {fault}: {found} bytes after the header, "
            f"expected {promised} for {_times(shape)}. {_REPLACE}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _content(path: Path, ndim: int) -> bytes:
    """The bytes of the file, unpacked if it is gzip."""
    packed = read_bytes(path, "an IDX file, gzip or raw")
    if not packed:
        raise UserError(f"{path}: is empty (0 bytes), expected an IDX file. {_REPLACE}")
    if not packed.startswith(b"\x1f\x8b"):
        return packed
    try:
        return _unpacked(path, packed, ndim)
    except EOFError:
        raise UserError(
            f"{path}: the gzip data are cut short ({len(packed)} bytes found, the end is missing). "
            f"{_REPLACE}"
        ) from None
    except (gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise UserError(f"{path}: the gzip data are damaged ({error}). {_REPLACE}") from None
    except MemoryError:
        raise MachineError(f"{path}: is too large for this machine's memory") from None


def _unpacked(path: Path, packed: bytes, ndim: int) -> bytes:
    """Unpack a gzip file, up to one byte more than its IDX header promises."""
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        header = file.read(4 + 4 * ndim)
        promised = math.prod(_shape(path, header, ndim))
        if promised > _MOST * len(packed):
            raise UserError(
                f"{path}: the header says {promised} bytes, which {len(packed)} packed bytes "
                f"cannot hold. {_REPLACE}"
            )
        return header + file.read(promised + 1)


def _shape(path: Path, content: bytes, ndim: int) -> tuple[int, ...]:
    """The sizes in the header, after checking the rest of the header."""
    expected = bytes([0, 0, UINT8, ndim])
    kind = {1: "labels", 3: "images"}.get(ndim, "values")
    if content[:4] != expected:
        raise UserError(
            f"{path}: begins with {content[:4].hex()} ({_meaning(content[:4])}), "
            f"expected {expected.hex()} (IDX {kind}, uint8, {ndim} dimensions). {_REPLACE}"
        )
    if len(content) < 4 + 4 * ndim:
        raise UserError(
            f"{path}: the header is cut short: {len(content)} bytes found, "
            f"expected {4 + 4 * ndim}. {_REPLACE}"
        )
    shape = struct.unpack_from(f">{ndim}I", content, 4)
    if 0 in shape:
        raise UserError(
            f"{path}: the header says {_times(shape)}, expected at least one in each dimension. "
            f"{_REPLACE}"
        )
    return shape


def _meaning(magic: bytes) -> str:
    """The likely meaning of a wrong magic number, for people."""
    if magic[:1] == b"<":
        return "a web page, not data"
    if len(magic) < 4 or magic[:2] != b"\x00\x00":
        return "not an IDX file"
    if magic[2] != UINT8:
        return f"IDX of type 0x{magic[2]:02x}, not unsigned bytes"
    return f"IDX of {magic[3]} dimensions"


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)
