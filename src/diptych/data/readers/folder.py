"""A folder of pictures, searched with all its sub-folders, in the order of their paths.

Taken are the suffixes of `diptych.data.picture.KINDS`, in any case. Left out, and counted by
reason, are hidden files and folders, files of other kinds, pipes and devices, links that lead
nowhere, and folders that were met before (a link into itself ends there). Of a folder that
`diptych sample` made, the samples alone are taken: its grids and films are none. Where every
picture lies in a sub-folder and there are two or more, those of the first level are classes,
numbered in the order of their names.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.picture import SUFFIXES
from diptych.data.sources.places import look, read_ends, read_file
from diptych.errors import MachineError, UserError
from diptych.files import read_json
from diptych.types import Int64

HIDDEN, OTHER, SPECIAL, BROKEN, AGAIN, UNSAMPLED = (
    "hidden", "of another kind", "no regular file", "broken link", "folder met before",
    "no sample",
)  # fmt: skip


@dataclass(frozen=True)
class Files:
    """Pictures as files below one folder."""

    root: Path
    names: list[str] = field(repr=False)  # paths below the root, with slashes
    origin: str
    crop: str = "center"
    labels: Int64 | None = field(default=None, repr=False)
    left_out: dict[str, int] = field(default_factory=dict)

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

    def stamp(self, index: int) -> str:
        """Changes when the file does: its length and its time of change."""
        try:
            found = (self.root / self.names[index]).stat()
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The first 64 KiB and the last 16 bytes; empty of a file that cannot be read."""
        return read_ends(self.root / self.names[index])


def find_pictures(root: Path) -> tuple[list[str], dict[str, int]]:
    """All pictures below a folder as sorted paths with slashes, and what was left out.

    Raises:
        UserError: not a folder, or samples that are not complete. MachineError: it may not be
            read.
    """
    kind = look(root)
    if kind != "folder":
        what = "is a file" if kind else "does not exist"
        raise UserError(f"{root}: {what}; expected a folder of pictures")
    found: list[str] = []
    left_out: Counter[str] = Counter()
    seen: set[str] = set()

    def refuse(error: OSError) -> None:
        raise MachineError(f"{error.filename}: may not be read. Check the folder's permissions.")

    for place, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            left_out[AGAIN] += 1
            continue
        seen.add(real)
        left_out[HIDDEN] += sum(name.startswith(".") for name in folders)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(root)
        samples = sample_names(Path(place)) if "manifest.json" in files else None
        for name in files:
            reason = _left_out(place, name, samples)
            if reason:
                left_out[reason] += 1
            else:
                found.append((below / name).as_posix())
    return sorted(found), {reason: left_out[reason] for reason in sorted(+left_out)}


def _left_out(place: str, name: str, samples: set[str] | None) -> str:
    """Why a file is no picture of the folder, or ''."""
    if name.startswith("."):
        return HIDDEN
    if not name.lower().endswith(SUFFIXES):
        return OTHER
    if samples is not None and name not in samples:
        return UNSAMPLED
    try:
        return "" if stat.S_ISREG(os.stat(os.path.join(place, name)).st_mode) else SPECIAL
    except OSError:
        return BROKEN


def is_sample_folder(path: Path) -> bool:
    """Whether `diptych sample` made this folder."""
    manifest = path / "manifest.json"
    return look(manifest) == "file" and "solver" in read_json(manifest)


def sample_names(path: Path) -> set[str] | None:
    """The names of the samples in a folder that `diptych sample` made; None for another folder.

    Raises:
        UserError: the sampling was not finished, or its manifest does not fit the images.
    """
    if not is_sample_folder(path):
        return None
    manifest = read_json(path / "manifest.json")
    if not manifest.get("complete"):
        raise UserError(
            f"{path}: the sampling was not finished; go on with diptych sample --resume"
        )
    found = {p.name for p in path.glob("[0-9]*.png") if p.stem.isdecimal()}
    num = manifest.get("num")
    numbers = {int(Path(name).stem) for name in found}
    if num != len(found) or numbers != set(range(len(found))):
        raise UserError(
            f"{path}: the manifest speaks of {num} images 00000.png and on, found "
            f"{len(found)}; sample them again"
        )
    return found


def open_folder(root: Path, origin: str | None = None, crop: str = "center") -> Files:
    """The pictures of a folder.

    Raises:
        UserError: not a folder, or without pictures.
    """
    names, left_out = find_pictures(root)
    if not names:
        kinds = ", ".join(SUFFIXES)
        held = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        raise UserError(
            f"{root}: holds no pictures ({kinds}){f', but {held}' if held else ''}; give a folder "
            "that does"
        )
    return Files(root, names, origin or str(root), crop, _classes(names), left_out)


def open_file(path: Path) -> Files:
    """One picture as a data set."""
    return Files(path.parent, [path.name], str(path))


def _classes(names: list[str]) -> Int64 | None:
    firsts = [name.partition("/")[0] if "/" in name else "" for name in names]
    known = sorted(set(firsts))
    if "" in known or len(known) < 2:
        return None
    number = {name: k for k, name in enumerate(known)}
    return np.array([number[first] for first in firsts], dtype=np.int64)
