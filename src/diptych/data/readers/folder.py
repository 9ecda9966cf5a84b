"""A folder of pictures, searched with all its sub-folders, in the order of their paths.

Files with the suffixes of `diptych.data.picture.KINDS`, in any case, are used. Hidden files and
folders, files of other kinds, pipes and devices, broken links, and folders already visited (which
ends link cycles) are left out, counted by reason, and named in a note. In a folder that `diptych
sample` made, only the samples are used; its grids, films and records need no note. If every
picture is in a sub-folder, and there are two or more on the first level, those are classes,
numbered in the order of their names.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diptych.data.notes import note
from diptych.data.picture import SUFFIXES
from diptych.errors import MachineError, UserError
from diptych.files import look, read_bytes, read_ends, read_json
from diptych.types import Int64

HIDDEN, OTHER, SPECIAL, BROKEN, AGAIN, UNSAMPLED = (
    "hidden", "of another kind", "no regular file", "broken link", "folder met before",
    "no sample",
)  # fmt: skip
# The reasons, which are recorded, as a note names them.
TOLD = {
    HIDDEN: "hidden",
    OTHER: "files of other kinds",
    SPECIAL: "pipes and devices",
    BROKEN: "broken links",
    AGAIN: "folders met before",
    UNSAMPLED: "pictures that are no samples",
}


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
        """Read the bytes of one picture."""
        return read_bytes(self.root / self.names[index], "a picture")

    def size(self, index: int) -> int:
        """The file's length in bytes; 0 if it no longer exists."""
        try:
            return (self.root / self.names[index]).stat().st_size
        except OSError:
            return 0

    def stamp(self, index: int) -> str:
        """The file's length and modification time."""
        try:
            found = (self.root / self.names[index]).stat()
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """The first 64 KiB and the last 16 bytes; empty if the file cannot be read."""
        return read_ends(self.root / self.names[index])


def find_pictures(root: Path) -> tuple[list[str], dict[str, int]]:
    """All pictures below a folder as sorted paths with slashes, and left-out counts by reason.

    A note names those that are left out, except for files that `diptych sample` writes beside its
    samples.

    Raises:
        UserError: not a folder, a run, or incomplete samples.
        MachineError: no permission to read it.
    """
    kind = look(root)
    if kind != "folder":
        what = "is a file" if kind else "does not exist"
        raise UserError(f"{root}: {what}; expected a folder of pictures")
    if look(root / "config.yaml") == "file" and look(root / "checkpoints") == "folder":
        raise UserError(
            f"{root}: is a run, and its grids are no set of pictures; draw images first: diptych "
            f"sample {root} --out FOLDER"
        )
    found: list[str] = []
    left_out: Counter[str] = Counter()
    beside: Counter[str] = Counter()  # those of them in sample folders
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
                beside[reason] += samples is not None
            else:
                found.append((below / name).as_posix())
    if found and (strange := left_out - beside):
        pictures = f"{len(found):,} picture{'s' * (len(found) != 1)}"
        note(f"{root}: {pictures}; left out: {_told(strange)}")
    return sorted(found), {reason: left_out[reason] for reason in sorted(+left_out)}


def _told(left_out: Mapping[str, int]) -> str:
    """Left-out counts for people."""
    return ", ".join(f"{TOLD[reason]} ({left_out[reason]:,})" for reason in sorted(left_out))


def _left_out(place: str, name: str, samples: set[str] | None) -> str:
    """The reason to leave a file out, or ''."""
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
    """True if `diptych sample` made this folder."""
    manifest = path / "manifest.json"
    return look(manifest) == "file" and "solver" in read_json(manifest)


def sample_names(path: Path) -> set[str] | None:
    """The names of the samples in a folder that `diptych sample` made; None for another folder.

    Raises:
        UserError: the sampling was not finished, or its manifest does not match the images.
    """
    if not is_sample_folder(path):
        return None
    manifest = read_json(path / "manifest.json")
    if not manifest.get("complete"):
        raise UserError(
            f"{path}: the sampling was not finished; go on with the command that began it"
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
    """Open the pictures of a folder.

    Raises:
        UserError: not a folder, or without pictures.
    """
    names, left_out = find_pictures(root)
    if not names:
        kinds = ", ".join(SUFFIXES)
        held = f"; left out: {_told(left_out)}" if left_out else ""
        raise UserError(f"{root}: holds no pictures ({kinds}){held}; give a folder that does")
    return Files(root, names, origin or str(root), crop, _classes(names), left_out)


def open_file(path: Path) -> Files:
    """Open one picture as a data set."""
    return Files(path.parent, [path.name], str(path))


def _classes(names: list[str]) -> Int64 | None:
    firsts = [name.partition("/")[0] if "/" in name else "" for name in names]
    known = sorted(set(firsts))
    if "" in known or len(known) < 2:
        return None
    number = {name: k for k, name in enumerate(known)}
    return np.array([number[first] for first in firsts], dtype=np.int64)
