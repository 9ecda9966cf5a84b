"""CelebA: the aligned 178x218 pictures, as files or in their zip, with the official split.

    celeba/img_align_celeba/000001.jpg ...  or  celeba/img_align_celeba.zip
    celeba/list_eval_partition.txt          lines `000001.jpg 0`: 0 train, 1 validation, 2 test

The official DDIM code trains on the 162,770 pictures of `train`, with the crop `celeba` of `crops`.
The authors permit downloads for research only from their own page, so Diptych downloads nothing.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from diptych.data.decoded import Items
from diptych.data.readers.folder import Files
from diptych.data.sources.places import locate
from diptych.data.sources.registry import cache_folder
from diptych.errors import UserError
from diptych.files import read_bytes
from diptych.types import Int64

NAME = "celeba"
FOLDERS = ("celeba/celeba", "celeba", "CelebA")
PICTURES, ARCHIVE, SPLITS = "img_align_celeba", "img_align_celeba.zip", "list_eval_partition.txt"
_NUMBER = {"train": "0", "test": "2"}
WANTED = f"{PICTURES}/ (or {ARCHIVE}) and {SPLITS}"


@dataclass(frozen=True)
class Zipped:
    """Pictures as members of a zip archive; reading is safe from several threads."""

    path: Path
    archive: zipfile.ZipFile = field(repr=False)
    names: list[str] = field(repr=False)
    members: dict[str, zipfile.ZipInfo] = field(repr=False)  # by the name in the split list
    origin: str
    crop: str = NAME
    labels: Int64 | None = None

    def title(self, index: int) -> str:
        """The archive and the member."""
        return f"{self.path}: {self.members[self.names[index]].filename}"

    def read(self, index: int) -> bytes:
        """Read the bytes of one member."""
        try:
            return self.archive.read(self.members[self.names[index]])
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError,
                NotImplementedError, ValueError) as error:  # fmt: skip
            raise UserError(f"{self.title(index)} is damaged ({error}). Fetch it again") from None

    def size(self, index: int) -> int:
        """The member's uncompressed length in bytes."""
        return self.members[self.names[index]].file_size

    def stamp(self, index: int) -> str:
        """The member's length and the CRC stated by the archive."""
        member = self.members[self.names[index]]
        return f"{member.file_size} {member.CRC}"

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """None: a record is read whole or not at all."""
        return None


def open_celeba(split: str, data_dir: Path | None = None) -> Items:
    """Open the pictures of a split.

    Raises:
        UserError: the files are missing (the message says what to put where), or the list or the
            archive is damaged.
    """

    def probe(folder: Path, origin: str) -> Items | None:
        pictures, archive = folder / PICTURES, folder / ARCHIVE
        if not pictures.is_dir() and not archive.is_file():
            return None
        names = _names(folder / SPLITS, split)
        if pictures.is_dir():
            inner = pictures / PICTURES  # some archives unpack to a nested folder
            pictures = inner if inner.is_dir() else pictures
            present = {path.name for path in pictures.iterdir()}
            _complete(pictures, names, present)
            return Files(pictures, names, origin, NAME)
        return _zipped(archive, names, origin)

    found = locate(NAME, FOLDERS, WANTED, data_dir, probe)
    if found is None:
        raise UserError(
            f"celeba is not on this machine, and its authors permit no download by others. Put "
            f"{WANTED} into {cache_folder(NAME)}, or into DATA/celeba and pass --data DATA"
        )
    return found


def _names(path: Path, split: str) -> list[str]:
    """The names that the list assigns to the split."""
    if not path.is_file():
        raise UserError(f"{path}: not found; put CelebA's list of splits beside its pictures")
    names = []
    content = read_bytes(path, "CelebA's list of splits").decode("utf-8", "replace")
    for line, text in enumerate(content.splitlines(), 1):
        parts = text.split()
        if not parts:
            continue
        if len(parts) != 2 or parts[1] not in ("0", "1", "2") or "/" in parts[0]:
            raise UserError(f"{path}: line {line} is '{text[:40]}', expected a name and 0, 1 or 2")
        if parts[1] == _NUMBER[split]:
            names.append(parts[0])
    if not names:
        raise UserError(f"{path}: names no picture of the split '{split}'")
    return names


def _complete(where: Path, names: list[str], present: set[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise UserError(
            f"{where}: {len(missing)} of {len(names)} pictures of the split are missing, "
            f"the first is {missing[0]}. Unpack or fetch the data again"
        )


def _zipped(path: Path, names: list[str], origin: str) -> Zipped:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: is cut short or not a zip ({error}). Fetch it again") from None
    members = {}
    for member in archive.infolist():
        # Some Windows programs write backslashes, which ZIP does not allow.
        *folders, name = member.filename.replace("\\", "/").split("/")
        if name and "__MACOSX" not in folders:
            members[name] = member
    _complete(path, names, set(members))
    return Zipped(path, archive, names, members, origin)
