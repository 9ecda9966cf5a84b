"""Atomic file writes, and output folders that are never overwritten by accident."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.errors import MachineError, UserError


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
            raise UserError(f"{what}: a file stands in the way ({error.strerror})") from error
        raise MachineError(f"{what}: {error.strerror or error}") from error


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: renamed to it if the block succeeds, removed if not.

    Creates the folder if it is missing. Raises the errors of `machine_faults`.
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
    """Write a small text file (UTF-8) atomically. Raises the errors of `machine_faults`."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        UserError, MachineError: see `machine_faults`.
        ValueError: the value holds NaN or infinity.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file. Raises UserError if it is missing or damaged."""
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
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse an output folder that `claim_folder` would refuse; change nothing.

    Raises:
        UserError: the path is a file, cannot be written, or holds files and neither `resume`
            nor `overwrite` is set; or `overwrite` would delete files that are not Diptych's.
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


# Files that mark a folder as Diptych's own; --overwrite only replaces such folders.
MARKS = ("config.yaml", "manifest.json", "demo.json", "align.json", "sweep.json",
         "cells/torch-*.json", "cells/jittor-*.json")  # fmt: skip
LOCK = ".lock"


def contents(path: Path) -> list[Path]:
    """The entries of a folder, except the lock file of a process working in it."""
    return [child for child in path.iterdir() if child.name != LOCK]


def claim_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Create or empty an output folder. Raises the errors of `check_folder`."""
    check_folder(path, resume=resume, overwrite=overwrite)
    with machine_faults(f"opening {path}"):
        path.mkdir(parents=True, exist_ok=True)
        old = contents(path) if overwrite else ()
        for left in [*old, *path.rglob(".*.tmp")]:  # .tmp: left by a killed process
            whole = left.is_dir() and not left.is_symlink()
            shutil.rmtree(left) if whole else left.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep other processes out of a folder; create it if it is missing.

    On a file system without locks, nobody is kept out. The lock is a file because network file
    systems lock files opened for writing, but not folders.

    Raises:
        UserError: another process holds it.
    """
    with machine_faults(f"opening {path}"):
        path.mkdir(parents=True, exist_ok=True)
        file = (path / LOCK).open("w")
    refusal = UserError(
        f"{path}: another process is at work in it; wait for its end, or choose another folder"
    )
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), (path / LOCK).stat()):
                raise refusal  # the previous holder has removed the file we opened
        except (BlockingIOError, FileNotFoundError) as error:
            raise refusal from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)
