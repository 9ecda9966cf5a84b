"""Images in an .npz file: uint8, (N, H, W, C), (N, H, W) or (N, C, H, W), with labels or without.

The array is the one called `images`, else `arr_0` (as the official ADM code saves samples), else
the only one of three or four dimensions. Labels are `labels` or `arr_1`. Nothing is unpickled.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diptych.errors import UserError
from diptych.types import Int64, Pixels

_CHANNELS = (1, 3)
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, struct.error,
           RuntimeError, SyntaxError, MemoryError)  # fmt: skip


def read_npz(path: Path) -> tuple[Pixels, Int64 | None]:
    """Images (N, C, H, W) and labels (N,) or None.

    Raises:
        UserError: not there, damaged, or without such an array.
    """
    if not path.is_file():
        what = "is a folder" if path.exists() else "not found"
        raise UserError(f"{path}: {what}; give an .npz file with an array 'images'")
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            arrays = {name: held[name] for name in held.files}
    except _DAMAGE as error:
        said = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: cannot be read as .npz ({said}). Make it again") from None
    images = _first(path, arrays)
    labels = arrays.get("labels", arrays.get("arr_1"))
    if labels is None:
        return images, None
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise UserError(
            f"{path}: labels are {labels.dtype} {labels.shape}, expected {len(images)} integers"
        )
    return images, labels.astype(np.int64)


def _first(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Pixels:
    several = [name for name, array in arrays.items() if array.ndim in (3, 4)]
    named = [name for name in ("images", "arr_0") if name in arrays] or several
    if not named or (len(several) > 1 and named is several):
        raise UserError(f"{path}: expected an array 'images', found {', '.join(arrays) or 'none'}")
    array = arrays[named[0]]
    form = f"'{named[0]}' is {array.dtype} {array.shape}"
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or not array.size:
        raise UserError(f"{path}: {form}, expected uint8 (N, H, W, C)")
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[-1] not in _CHANNELS and array.shape[1] in _CHANNELS:
        return np.asarray(array, dtype=np.uint8)
    if array.shape[-1] not in _CHANNELS:
        raise UserError(f"{path}: {form}; the channels must be 1 or 3")
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2), dtype=np.uint8)
