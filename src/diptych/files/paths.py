"""Regular files opened and checked, and faults of the machine as one line."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from diptych.errors import MachineError, UserError


def user_cache(*below: str) -> Path:
    """The folder of what is downloaded or computed once for this user, or one below it.

    It need not exist. XDG_CACHE_HOME moves it.
    """
    import platformdirs

    return Path(platformdirs.user_cache_dir("diptych"), *below)


@contextlib.contextmanager
def machine_faults(what: str) -> Iterator[None]:
    """Turn an OSError raised while doing `what` into one clear line.

    Raises:
        UserError: no permission, or a file in the way.
        MachineError: a full disk, or any other fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MachineError(f"{what}: the disk is full; free some space and resume") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{what}: no permission to write; choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UserError(f"{what}: a file is in the way ({error.strerror})") from error
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT):
            raise UserError(f"{what}: {error.strerror}; choose another path") from error
        raise MachineError(f"{what}: {error.strerror or error}") from error


def check_path(path: Path) -> int | None:
    """The mode of what is at `path`, links followed; None if nothing is.

    Raises:
        UserError: no system takes such a path, a link leads to itself, or no permission.
    """
    if "\0" in str(path):
        raise UserError(f"{str(path)!a}: no path holds a NUL character; give another")
    with machine_faults(str(path)):
        try:
            return path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made; change nothing. It need not exist.

    Raises:
        UserError: a file is in its place or above it, or no permission.
    """
    above = (folder.absolute(), *folder.absolute().parents)
    existing = next(each for each in above if os.path.lexists(each))
    if not existing.is_dir():
        kind = "a link to nothing" if existing.is_symlink() and not existing.exists() else "a file"
        raise UserError(f"{existing}: is {kind}; give a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: no permission to write; choose another folder")


def check_file(path: Path, overwrite: bool) -> None:
    """Refuse an output file that could not be written after the work; change nothing.

    Raises:
        UserError: as `check_replaceable`; or a folder, or an existing file without `overwrite`.
    """
    check_replaceable(path)
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file in it")
    if path.exists() and not overwrite:
        raise UserError(f"{path}: exists; choose another --out, or replace it with --overwrite")


def check_replaceable(path: Path) -> None:
    """Refuse a path at which no file or folder can be put; change nothing.

    Raises:
        UserError: a device, a FIFO or a socket is there. Otherwise as `check_writable`.
    """
    mode = check_path(path)
    check_writable(path.parent)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UserError(f"{path}: is {_named(mode)}, and only files are replaced; choose another")


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


def _named(mode: int) -> str:
    kinds = (
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
    )
    return next((name for test, name in kinds if test(mode)), "a device")


def open_file(path: Path, expected: str) -> IO[bytes]:
    """A regular file opened for reading; never waits for a FIFO or a device.

    Args:
        path: of the file, or of a link to it.
        expected: a word for messages, such as "a YAML file".

    Raises:
        UserError: nothing there, something other than a file, no permission, or no possible path.
        MachineError: the system cannot open it.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{path}: not found; expected {expected}") from error
    except ValueError as error:  # a NUL character
        raise UserError(f"{str(path)!a}: cannot be a path; expected {expected}") from error
    except OSError as error:
        own = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO)
        kind = UserError if error.errno in own else MachineError
        raise kind(f"{path}: cannot be opened ({error.strerror}); expected {expected}") from error
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise UserError(f"{path}: is {_named(mode)}; expected {expected}")
    return os.fdopen(number, "rb")


def read_bytes(path: Path, expected: str, most: int | None = None) -> bytes:
    """The content of a regular file, of at most `most` bytes if that is given.

    Raises:
        UserError: as `open_file`, or too long.
        MachineError: it cannot be read, or is too large for the memory.
    """
    with open_file(path, expected) as file:
        try:
            content = file.read() if most is None else file.read(most + 1)
        except OSError as error:
            raise MachineError(f"{path}: cannot be read ({error.strerror})") from error
        except MemoryError:
            raise MachineError(f"{path}: is too large for this machine's memory") from None
    if most is not None and len(content) > most:
        raise UserError(f"{path}: is longer than {most:,} bytes; expected {expected}")
    return content


def read_ends(path: Path, head: int = 1 << 16, tail: int = 16) -> tuple[bytes, bytes]:
    """The first and the last bytes of a regular file; empty if it cannot be read."""
    try:
        with open_file(path, "a file") as file:
            first = file.read(head)
            file.seek(max(0, file.seek(0, os.SEEK_END) - tail))
            return first, file.read(tail)
    except (OSError, UserError, MachineError):
        return b"", b""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~NAME` as the home folder they mean; UserError if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: this home folder is not known; give the whole path") from error
