"""Where the colour data sets are looked for: in one named folder, or in the usual places.

    --data DIR, else DIPTYCH_DATA; then nowhere else
    the user's cache;  ./data, ~/.cache, ~/.cache/torch

Below each, the sub-folders that other software uses are tried first, those of the official DDIM
code (`EXP/datasets`) among them, then the folder itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from diptych.data.sources.registry import ENVIRONMENT, checked_root, shared_roots
from diptych.errors import MachineError, UserError

T = TypeVar("T")


def cache_folder(name: str) -> Path:
    """Where a download of this data set is put, and may be put by hand."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("diptych")) / "data" / name


def locate(
    name: str,
    folders: tuple[str, ...],
    wanted: str,
    data_dir: Path | None,
    probe: Callable[[Path, str], T | None],
) -> T | None:
    """The first thing that `probe(folder, origin)` finds; None where the usual places hold none.

    Args:
        name: the data set, for messages and for the cache.
        folders: sub-folders to try below each place.
        wanted: what a folder must hold, for the message.
        data_dir: a folder that the user named, or the very file that `probe` takes.
        probe: gives what it found in a folder, or None.

    Raises:
        UserError: a named folder does not hold the data.
        MachineError: a place that may not be read.
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


def read_file(path: Path) -> bytes:
    """The bytes of one file.

    Raises:
        UserError: it is gone. MachineError: the machine does not let us read it.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f"{path}: no such file; put it back, or take it off the list") from None
    except OSError as error:
        raise MachineError(f"{path}: cannot be read ({error.strerror or error})") from None
