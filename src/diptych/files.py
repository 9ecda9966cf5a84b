"""Files that are there whole or not at all, and folders that nothing overwrites by accident."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.errors import MachineError, UserError


@contextlib.contextmanager
def machine_faults(what: str) -> Iterator[None]:
    """Turn the system's refusals while doing `what` into one clear line.

    Raises:
        UserError: no permission, or a file in the way. MachineError: a full disk, or another fault.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MachineError(f"{what}: the disk is full; free some space and resume") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(f"{what}: no permission to write; choose another folder") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise UserError(f"{what}: a file stands in the way ({error.strerror})") from error
        raise MachineError(f"{what}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved to it when the block ends well, else removed.

    Its folder is made where it is missing. Raises as `machine_faults` does.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with machine_faults(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb+") as file:
                os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a small text file (UTF-8) atomically. Raises as `machine_faults` does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. Raises as `machine_faults`; ValueError for nan, infinity."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises UserError where it is missing or damaged."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def sha256_of(path: Path) -> str:
    """Sha256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse an output folder that would be refused later; changes nothing.

    Raises:
        UserError: it is a file, cannot be written, or holds files and neither `resume` nor
            `overwrite` was asked for.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; give a folder")
    with machine_faults(f"opening {path}"):
        inside = contents(path) if path.is_dir() else []
        if inside and not (resume or overwrite):
            raise UserError(
                f"{path}: the folder is not empty; go on with --resume, "
                f"or replace it with --overwrite"
            )
        if inside and overwrite and not any(next(path.glob(m), None) for m in MARKS):
            raise UserError(
                f"{path}: holds files that are not Diptych's; --overwrite would delete them all. "
                f"Choose another folder"
            )
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not existing.is_dir():
        raise UserError(f"{existing}: is a file; give a folder")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{existing}: no permission to write; choose another folder")


# What a folder of ours holds: only such a one is ever replaced whole.
MARKS = ("config.yaml", "manifest.json", "demo.json", "align.json", "sweep.json",
         "cells/torch-*.json", "cells/jittor-*.json")  # fmt: skip
LOCK = ".lock"


def contents(path: Path) -> list[Path]:
    """What a folder holds, but for the lock of the process at work in it."""
    return [child for child in path.iterdir() if child.name != LOCK]


def claim_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Make an output folder ready. Its caller holds it: see `output_folder`.

    Raises:
        UserError: as `check_folder`; or another process is at work in a folder that would go.
    """
    check_folder(path, resume=resume, overwrite=overwrite)
    with machine_faults(f"opening {path}"):
        path.mkdir(parents=True, exist_ok=True)
        held = [lock.parent for lock in path.rglob(f"*/{LOCK}") if _is_held(lock)]
        if overwrite and held:
            raise UserError(f"{held[0]}: another process is at work in it; wait for its end")
        left = [temp for temp in path.rglob(".*.tmp") if _abandoned(temp, held)]
        for each in [*(contents(path) if overwrite else ()), *left]:
            whole = each.is_dir() and not each.is_symlink()
            shutil.rmtree(each) if whole else each.unlink(missing_ok=True)


def _abandoned(temporary: Path, held: list[Path]) -> bool:
    """Whether nobody writes a temporary file: its process is gone, and its folder is not held."""
    number = temporary.name.split(".")[-2]
    if number.isdecimal() and int(number) != os.getpid():
        try:
            os.kill(int(number), 0)
            return False
        except (ProcessLookupError, OverflowError):
            pass
        except PermissionError:  # there, and somebody else's
            return False
    return not any(folder in temporary.parents for folder in held)


def _is_held(lock: Path) -> bool:
    try:
        with lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextlib.contextmanager
def output_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Hold an output folder and make it ready: the one policy of every command that writes one.

    Raises:
        UserError: as `hold` and `check_folder`.
    """
    with hold(path):
        claim_folder(path, resume=resume, overwrite=overwrite)
        yield


INHERITED = "DIPTYCH_LOCK"  # the number of an open lock that the process which started us holds


@contextlib.contextmanager
def hold(path: Path) -> Iterator[int]:
    """Keep other processes out of a folder, which is made if it is missing; gives the lock.

    The lock goes with the process that has it, however that ends. A child process takes part in it
    with `inherited`. A file system without locks keeps nobody out. (A network's has them for files
    opened to be written, and not for folders: hence a file.)

    Raises:
        UserError: another process holds it; the message says which.
    """
    with machine_faults(f"opening {path}"):
        made = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        number = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if _ours(number):
            yield number
            return
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us may have removed the file that we opened.
            if not os.path.samestat(os.fstat(number), (path / LOCK).stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError) as error:
            by = os.pread(number, 400, 0).decode("utf-8", "replace").strip()
            raise UserError(
                f"{path}: another process is at work in it{f' ({by})' if by else ''}; "
                f"wait for its end, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        with contextlib.suppress(OSError):  # on a full disk it stays without a name
            os.ftruncate(number, 0)
            os.pwrite(number, f"process {os.getpid()}: {_command()}".encode(), 0)
        try:
            yield number
        finally:
            (path / LOCK).unlink(missing_ok=True)
            if made:  # and nothing came into it
                with contextlib.suppress(OSError):
                    path.rmdir()
    finally:
        os.close(number)


def inherited(lock: int) -> dict[str, Any]:
    """Arguments of `subprocess.run` for a child that works in the folder that `lock` holds."""
    return {"pass_fds": [lock], "env": {**os.environ, INHERITED: str(lock)}}


def _ours(number: int) -> bool:
    """Whether this lock file is the one that the process which started us holds."""
    try:
        return os.path.samestat(os.fstat(int(os.environ[INHERITED])), os.fstat(number))
    except (KeyError, ValueError, OSError):
        return False


def _command() -> str:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return " ".join(" ".join(words).replace("__main__.py", "diptych").split())[:300]
