"""LSUN and FFHQ as LMDB databases, in the layouts that the official DDIM code reads.

    LSUN   lsun/CATEGORY_train_lmdb, CATEGORY_val_lmdb:   every record is one picture, in key order
    FFHQ   FFHQ/: `length` and RESOLUTION-00000 ...;      90 % train and 10 % test of the indices,
           shuffled by numpy.random.RandomState(2019)

FFHQ may also be a folder of pictures. Reading a database needs the package `lmdb` (diptych[lmdb]).
A truncated database is refused beforehand: reading past its end would crash the process.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.size import Size, size_text
from diptych.data.decoded import Items
from diptych.data.readers.folder import Files, find_pictures
from diptych.data.sources.places import locate
from diptych.data.sources.registry import cache_folder
from diptych.errors import MachineError, UserError
from diptych.machine.packages import require
from diptych.types import Int64

LSUN = "lsun_"
LSUN_FOLDERS = ("lsun", "LSUN")
FFHQ_FOLDERS = ("FFHQ", "ffhq")
_SPLIT_SEED = 2019
# LMDB refuses to open a database twice in one process.
_OPEN: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Records:
    """Pictures as records of one database."""

    path: Path
    database: Any = field(repr=False)
    keys: list[bytes] = field(repr=False)
    origin: str
    crop: str
    labels: Int64 | None = None
    numbered: bool = False  # the keys are only numbers, so lengths distinguish databases

    @property
    def names(self) -> list[str]:
        """The keys as text."""
        return [key.decode("utf-8", "backslashreplace") for key in self.keys]

    def title(self, index: int) -> str:
        """The database and the key."""
        return f"{self.path}: record {self.keys[index].decode('utf-8', 'backslashreplace')}"

    def read(self, index: int) -> bytes:
        """Read the record's bytes."""
        with self.database.begin(buffers=False) as transaction:
            value = transaction.get(self.keys[index])
        if value is None:
            raise UserError(f"{self.title(index)} is missing. Make the database again")
        return bytes(value)

    def size(self, index: int) -> int:
        """A numbered record's length; else 0, because reading is slow and the key identifies it."""
        if not self.numbered:
            return 0
        with self.database.begin(buffers=True) as transaction:
            return len(transaction.get(self.keys[index]) or b"")

    def stamp(self, index: int) -> str:
        """The database file's length and modification time."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:
        found = (self.path / "data.mdb").stat()
        return f"{found.st_size} {found.st_mtime_ns}"

    def ends(self, index: int) -> tuple[bytes, bytes] | None:
        """None: a record is read whole or not at all."""
        return None


def is_lsun(source: str) -> bool:
    """True if a source is a category of LSUN, such as lsun_bedroom."""
    return source.startswith(LSUN) and len(source) > len(LSUN)


def open_lsun(source: str, split: str, data_dir: Path | None = None) -> Records:
    """Open the pictures of one category of LSUN.

    Raises:
        UserError: missing (the message says what to put where), damaged, or `lmdb` is not
            installed.
    """
    category = source.removeprefix(LSUN)
    name = f"{category}_{'train' if split == 'train' else 'val'}_lmdb"

    def probe(folder: Path, origin: str) -> Records | None:
        path = folder if folder.name == name else folder / name
        if not (path / "data.mdb").is_file():
            return None
        database = open_database(path)
        keys = _read(path, database, lambda t: list(t.cursor().iternext(values=False)))
        if not keys:
            raise UserError(f"{path}: the database holds no records; fetch it again")
        return Records(path, database, keys, origin, "center")

    found = locate(source, LSUN_FOLDERS, name, data_dir, probe)
    if found is None:
        raise UserError(
            f"{source} is not on this machine. Fetch {name}.zip with LSUN's own script and unpack "
            f"{name} into {cache_folder(source)}, or into DATA/lsun and pass --data DATA"
        )
    return found


def open_ffhq(split: str, size: Size | None, data_dir: Path | None = None) -> Items:
    """Open FFHQ from the official code's database at the given resolution, or from a folder.

    Raises:
        UserError: missing, damaged, a record missing, or no such resolution in the database.
    """

    def probe(folder: Path, origin: str) -> Items | None:
        if (folder / "data.mdb").is_file():
            return _ffhq_records(folder, split, size, origin)
        if folder.name.lower() != "ffhq" and data_dir is None:
            return None  # otherwise any folder of pictures would match
        names, left_out = find_pictures(folder)
        chosen = [names[i] for i in _ffhq_split(len(names), split)]
        return Files(folder, chosen, origin, left_out=left_out) if names else None

    wanted = "the database of the official code (data.mdb) or the pictures"
    found = locate("ffhq", FFHQ_FOLDERS, wanted, data_dir, probe)
    if found is None:
        raise UserError(
            f"ffhq is not on this machine, and its licence asks for a download by hand. Put "
            f"{wanted} into {cache_folder('ffhq')}, or into DATA/FFHQ and pass --data DATA"
        )
    return found


def _ffhq_split(count: int, split: str) -> list[int]:
    indices = list(range(count))
    np.random.RandomState(_SPLIT_SEED).shuffle(indices)
    cut = int(count * 0.9)
    return indices[:cut] if split == "train" else indices[cut:]


def _ffhq_records(path: Path, split: str, size: Size | None, origin: str) -> Records:
    database = open_database(path)
    length = _read(path, database, lambda t: t.get(b"length"))
    if length is None or not bytes(length).isdigit():
        raise UserError(f"{path}: the record 'length' is missing; make the database again")
    keys = _read(path, database, lambda t: set(t.cursor().iternext(values=False)))
    sizes = sorted({int(key.split(b"-")[0]) for key in keys if key[:1].isdigit() and b"-" in key})
    wanted = size if size is not None else max(sizes, default=0)
    if wanted not in sizes:
        text = size_text(wanted)
        raise UserError(f"{path}: holds no pictures of {text}, but of {sizes}; give that size")
    named = [f"{wanted}-{index:05d}".encode() for index in range(int(length))]
    missing = [key for key in named if key not in keys]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {len(named)} records are missing, the first is "
            f"{missing[0].decode()}. Make the database again"
        )
    chosen = _ffhq_split(len(named), split)
    keyed = [named[i] for i in chosen]
    return Records(path, database, keyed, origin, "center", numbered=True)


def open_database(path: Path) -> Any:
    """Open a database for reading without locks, from several threads.

    Raises:
        UserError: `lmdb` is not installed; not a database, or a truncated one.
    """
    lmdb = require("lmdb", "lmdb", where=str(path))
    real = str(path.resolve())
    try:
        if real in _OPEN:
            return _OPEN[real]
        database = lmdb.open(
            real, readonly=True, lock=False, readahead=False, max_readers=512, create=False
        )
        pages = database.info()["last_pgno"] + 1
        needed = pages * database.stat()["psize"]
    except lmdb.Error as error:
        raise UserError(f"{path}: is not a sound LMDB database ({error}). Fetch it again") from None
    held = (path / "data.mdb").stat().st_size
    if held < needed:
        database.close()
        raise UserError(
            f"{path}: data.mdb is cut short: {held} bytes, expected {needed}. Fetch it again"
        )
    _OPEN[real] = database
    return database


def _read(path: Path, database: Any, what: Callable[[Any], Any]) -> Any:
    import lmdb

    try:
        with database.begin() as transaction:
            return what(transaction)
    except lmdb.Error as error:
        raise UserError(f"{path}: the database is damaged ({error}). Fetch it again") from None
    except MemoryError:
        raise MachineError(f"{path}: too many records for this machine's memory") from None
