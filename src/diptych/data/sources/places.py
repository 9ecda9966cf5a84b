"""Search for the colour data sets in one named folder, or in the usual places.

    --data DIR, else DIPTYCH_DATA; if given, nowhere else
    the user's cache;  ./data, ~/.cache, ~/.cache/torch

Below each, the sub-folders that other software uses are tried first, including those of the
official DDIM code (`EXP/datasets`), then the folder itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from diptych.data.sources.registry import ENVIRONMENT, cache_folder, checked_root, shared_roots
from diptych.errors import MachineError, UserError
from diptych.files import expanded

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
            return _in_named(name, folders, wanted, expanded(named), by, probe)
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
