"""Locks of output folders: one process at a time works in a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files.paths import machine_faults

LOCK = ".lock"
MOMENT = 0.1  # seconds
PART_LOCK = re.compile(r"\.(part-\d+-of-\d+)\.lock")  # of a part of the work in a folder
INHERITED = "DIPTYCH_LOCK"  # the number of an open lock that the process which started us holds


class Held(UserError):
    """Another process is at work there."""


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # two may look at the same time
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def part_at_work(path: Path) -> str | None:
    """A part of the work in a folder that another process does now; None: there is none."""
    for child in path.iterdir():
        if (part := PART_LOCK.fullmatch(child.name)) and _is_held(child):
            return part[1]
    return None


@contextlib.contextmanager
def hold(path: Path) -> Iterator[int]:
    """Keep other processes out of a folder; create it if it is missing. Gives the lock.

    A folder that was created and stays empty is removed again. A child process takes part in the
    lock with `inherited`.

    Raises:
        Held: another process holds it; the message says which.
    """
    with _lock(path / LOCK, path) as number:
        if (part := part_at_work(path)) is not None:
            raise Held(
                f"{path}: another process is at work in it ({part}); wait until it ends, or "
                f"choose another folder"
            )
        yield number


@contextlib.contextmanager
def hold_part(path: Path, part: str) -> Iterator[int]:
    """Keep other processes from the same part of the work in a folder, and from the whole of it.

    Gives the lock, in which a child process takes part by `inherited`.

    Args:
        path: the folder; it is created if it is missing.
        part: `part-K-of-N`.

    Raises:
        Held: another process does this part, or holds the folder.
    """
    with _lock(path / f".{part}{LOCK}", path) as number:
        if _is_held(path / LOCK):
            raise Held(
                f"{path}: another process is at work in it; wait until it ends, or choose another "
                f"folder"
            )
        yield number


@contextlib.contextmanager
def hold_place(path: Path) -> Iterator[int]:
    """Keep other processes from writing a file or folder that is replaced whole. Gives the lock.

    Raises:
        Held: another process writes it, or is at work inside.
    """
    if _is_held(path / LOCK):
        raise Held(f"{path}: another process is at work in it; wait until it ends")
    with _lock(path.parent / f".{path.name}{LOCK}", path) as number:  # "." and "/" have no name
        yield number


@contextlib.contextmanager
def _lock(file: Path, where: Path) -> Iterator[int]:
    """Hold a lock file, which names its process; gives its number.

    The lock ends with its process, however that ends. On a file system without locks, nobody is
    kept out. The lock is a file because network file systems lock files opened for writing, but not
    folders.
    """
    folder = file.parent
    with machine_faults(f"opening {where}"):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with machine_faults(f"opening {where}"):
            number = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            if _ours(number):
                yield number
                return
            _take(number, file, where)
            try:
                yield number
            finally:
                file.unlink(missing_ok=True)
        finally:
            os.close(number)
    finally:
        if made:
            with contextlib.suppress(OSError):  # something came into it
                folder.rmdir()


def _take(number: int, file: Path, where: Path) -> None:
    try:
        _lock_soon(number)
        if not os.path.samestat(os.fstat(number), file.stat()):
            raise FileNotFoundError  # the previous holder has removed the file that we opened
    except (BlockingIOError, FileNotFoundError) as error:
        by = os.pread(number, 400, 0).decode("utf-8", "replace").strip()
        raise Held(
            f"{where}: another process is at work in it{f' ({by})' if by else ''}; "
            f"wait until it ends, or choose another folder"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    with contextlib.suppress(OSError):  # on a full disk it stays without a name
        os.ftruncate(number, 0)
        said = f"process {os.getpid()}: {_command()}"
        os.pwrite(number, said.encode(errors="backslashreplace"), 0)


def _lock_soon(number: int) -> None:
    """Lock an open file (BlockingIOError). One who only looks whether it is locked holds it too,
    for a moment."""
    ends = time.monotonic() + MOMENT
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > ends:
                raise
            time.sleep(MOMENT / 10)


def inherited(lock: int, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments of `subprocess.run` for a child that works in the folder that `lock` holds.

    Args:
        environment: the child's; None: that of this process.
    """
    variables = os.environ if environment is None else environment
    return {"pass_fds": [lock], "env": {**variables, INHERITED: str(lock)}}


def _ours(number: int) -> bool:
    """True if the process that started us holds this lock file."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[INHERITED])), os.fstat(number))
    except (KeyError, ValueError, OSError):
        return False


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(" ".join(words).replace("__main__.py", "diptych").split())[:300]
