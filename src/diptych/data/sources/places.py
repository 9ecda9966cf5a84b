"""Search for the colour data sets in one named folder, or in the usual places.

    --data DIR, else DIPTYCH_DATA; if given, nowhere else
    the user's cache;  ./data, ~/.cache, ~/.cache/torch

Below each, the sub-folders that other software uses are tried first, including those of the
official DDIM code (`EXP/datasets`), then the folder itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from diptych.data.sources.registry import ENVIRONMENT, cache_folder, checked_root, shared_roots
from diptych.errors import MachineError, UserError

T = TypeVar("T")


def locate(
    name: str,
    folders: tuple[str, ...],
    wanted: str,
    data_dir: Path | None,
    probe: Callable[[Path, str], T | None],
) -> T | None:
    """The first result of `probe(folder, origin)`; None if the usual places hold none.

    Args:
        name: the data set, for messages and for the cache.
        folders: sub-folders to try below each place.
        wanted: the required content of a folder, for the message.
        data_dir: a folder that the user named, or the file itself that `probe` accepts.
        probe: returns its find in a folder, or None.

    Raises:
        UserError: a named folder does not hold the data.
        MachineError: no permission to read a place.
    """
    by = "--data" if data_dir is not None else ENVIRONMENT
    named = data_dir if data_dir is not None else os.environ.get(ENVIRONMENT)
    try:
        if named:
            return _in_named(name, folders, wanted, Path(named).expanduser(), by, probe)
        for place in [cache_folder(name), *shared_roots()]:
            for folder in _below(place, folders):
                found = probe(folder, str(folder)) if folder.is_dir() else None
                if found is not None:
                    return found
    except PermissionError as error:
        raise MachineError(f"{error.filename}: may not be read. Check the permissions.") from None
    return None


def _in_named(
    name: str,
    folders: tuple[str, ...],
    wanted: str,
    root: Path,
    by: str,
    probe: Callable[[Path, str], T | None],
) -> T:
    if not root.is_file():
        root = checked_root(name, root, by)
    for folder in [root] if root.is_file() else _below(root, folders):
        found = probe(folder, f"{folder} ({by})") if folder.exists() else None
        if found is not None:
            return found
    raise UserError(
        f"{by} {root}: holds no {name}; expected {wanted} in {root / folders[0]} or in {root} "
        f"itself. Put them there, or leave {by} out."
    )


def _below(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    yield from (root / folder for folder in folders)
    yield root


def look(path: Path) -> str:
    """The kind of a path: "file", "folder", "other" (a pipe, a device ...) or "" for nothing.

    Raises:
        UserError: the system rejects the path: too long, a link cycle, a zero byte.
        MachineError: no permission to read a folder on the way.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except PermissionError:
        raise MachineError(f"{path}: may not be read. Check the permissions.") from None
    except (OSError, ValueError) as error:
        shown = str(path) if len(str(path)) < 200 else f"{str(path)[:200]}..."
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{shown!r}: is not a usable path ({said}); correct it") from None
    if stat.S_ISDIR(mode):
        return "folder"
    return "file" if stat.S_ISREG(mode) else "other"


def read_file(path: Path) -> bytes:
    """Read one regular file; a pipe or a device is refused without waiting for it.

    Raises:
        UserError: it does not exist or is not a regular file.
        MachineError: the machine cannot read it.
    """
    try:
        with _regular(path) as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{path}: no such file; put it back, or take it off the list") from None
    except ValueError as error:
        raise UserError(f"{str(path)!r}: is not a usable path ({error}); correct it") from None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise MachineError(f"{path}: is too large for this machine's memory") from None


def read_ends(path: Path, head: int = 1 << 16, tail: int = 16) -> tuple[bytes, bytes]:
    """The first and the last bytes of a regular file; empty if it cannot be read."""
    try:
        with _regular(path) as file:
            first = file.read(head)
            file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
            return first, file.read(tail)
    except (OSError, ValueError, UserError):
        return b"", b""


def _regular(path: Path) -> BinaryIO:
    """Open a regular file. Raises UserError if it is not one, OSError like `open`."""
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(path)
        raise UserError(f"{path}: is not a regular file; take it out, or put a file there")
    return open(descriptor, "rb")
