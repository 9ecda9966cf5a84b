"""Read packed data: all pictures of a source, cropped once, in one memory-mapped file.

    FILE         a .npy file: uint8, (N, H, W, C), row after row
    FILE.json    the index: source, split, crop, names, labels, skipped pictures, pixels' sha256

Any program that knows .npy can read it. The sha256 is that of `Dataset.sha256` (channels first), so
packed and unpacked copies of the same pixels have one identity. An index whose file has another
length or format is refused; `diptych data verify` reads all pixels and compares.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import MachineError, UserError
from diptych.files import look, read_json
from diptych.types import Int64, Pixels

FORMAT = "diptych-packed-1"
_MOST_BYTES, _MOST_VALUES = 2**30, 30_000_000  # an index holds a name for each picture
_AGAIN = "Pack it again with diptych data prepare"


def index_path(path: Path) -> Path:
    """The path of a packed file's index."""
    return path.with_name(f"{path.name}.json")


def read_index(path: Path) -> dict[str, Any]:
    """Read the index of a packed file.

    Raises:
        UserError: no such file, no index, or one of another format.
    """
    kind, index_kind = look(path), look(index_path(path))
    if kind == "file" and not index_kind:
        raise UserError(
            f"{path}: has no index {index_path(path).name} beside it. {_AGAIN}, or read it as a "
            f"plain array: npz:{path}"
        )
    if kind != "file" or index_kind == "other":
        what = {"": "not found", "folder": "is a folder"}.get(kind, "is not a regular file")
        raise UserError(f"{path}: {what}; expected a file that diptych data prepare made")
    index = read_json(index_path(path), most_bytes=_MOST_BYTES, most_values=_MOST_VALUES)
    sound = (
        index.get("format") == FORMAT
        and isinstance(index.get("shape"), list)
        and isinstance(index.get("names"), list)
        and isinstance(index.get("sha256"), str)
        and len(index["shape"]) == 4
        and len(index["names"]) == index["shape"][0]
    )
    if not sound:
        raise UserError(f"{index_path(path)}: is not the index of a packed file. {_AGAIN}")
    return index


def read_packed(
    path: Path,
) -> tuple[Pixels, Int64 | None, dict[str, Any]]:
    """Map a packed file: images (N, C, H, W); labels (N,) or None; and its index.

    Raises:
        UserError: missing, truncated, or inconsistent with its index.
        MachineError: no permission to read the file.
    """
    index = read_index(path)
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except PermissionError:
        raise MachineError(f"{path}: may not be read. Check the file's permissions.") from None
    except (ValueError, OSError, EOFError, SyntaxError) as error:
        said = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: is cut short or damaged ({said}). {_AGAIN}") from None
    if rows.dtype != np.uint8 or list(rows.shape) != index["shape"]:
        raise UserError(
            f"{path}: holds {rows.dtype} {rows.shape}, its index says uint8 "
            f"{tuple(index['shape'])}. {_AGAIN}"
        )
    labels = index.get("labels")
    if labels is not None and len(labels) != len(rows):
        raise UserError(
            f"{index_path(path)}: {len(labels)} labels for {len(rows)} images. {_AGAIN}"
        )
    classes = None if labels is None else np.array(labels, dtype=np.int64)
    _read_no_neighbours(rows)
    return rows.transpose(0, 3, 1, 2), classes, index


def _read_no_neighbours(rows: Pixels) -> None:
    """Tell the system that rows are read in random order.

    Otherwise it reads 128 KiB around each: from a file larger than memory, a batch of 128 rows of
    12 KiB took 205 ms that way and 4 ms without, measured on one machine with nothing cached.
    """
    mapped = getattr(rows, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
