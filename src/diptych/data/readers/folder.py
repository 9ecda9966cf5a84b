"""A folder of pictures, searched with all its sub-folders, in the order of their paths.

Taken are the suffixes .jpg, .jpeg, .png and .webp, in any case; hidden files are left out. Where
every picture lies in a sub-folder and there are two or more, those of the first level are classes,
numbered in the order of their names.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.picture import SUFFIXES
from diptych.data.sources.places import read_file
from diptych.errors import MachineError, UserError
from diptych.types import Int64


@dataclass(frozen=True)
class Files:
    """Pictures as files below one folder."""

    root: Path
    names: list[str] = field(repr=False)  # paths below the root, with slashes
    origin: str
    crop: str = "center"
    labels: Int64 | None = field(default=None, repr=False)

    def title(self, index: int) -> str:
        """The path of one picture."""
        return str(self.root / self.names[index])

    def read(self, index: int) -> bytes:
        """Its bytes."""
        return read_file(self.root / self.names[index])

    def size(self, index: int) -> int:
        """How many there are; 0 for a file that is gone."""
        try:
            return (self.root / self.names[index]).stat().st_size
        except OSError:
            return 0


def find_pictures(root: Path) -> list[str]:
    """All pictures below a folder as sorted paths with slashes; a link into itself ends there.

    Raises:
        UserError: not a folder. MachineError: it may not be read.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root}: {what}; expected a folder of pictures")
    found: list[str] = []
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise MachineError(f"{error.filename}: may not be read. Check the folder's permissions.")

    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(root)
        found += [
            (below / name).as_posix()
            for name in files
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def open_folder(root: Path, origin: str | None = None, crop: str = "center") -> Files:
    """The pictures of a folder.

    Raises:
        UserError: not a folder, or without pictures.
    """
    names = find_pictures(root)
    if not names:
        kinds = ", ".join(SUFFIXES)
        raise UserError(f"{root}: holds no pictures ({kinds}); give a folder that does")
    return Files(root, names, origin or str(root), crop, _classes(names))


def _classes(names: list[str]) -> Int64 | None:
    firsts = [name.partition("/")[0] if "/" in name else "" for name in names]
    known = sorted(set(firsts))
    if "" in known or len(known) < 2:
        return None
    number = {name: k for k, name in enumerate(known)}
    return np.array([number[first] for first in firsts], dtype=np.int64)
