"""Files that are there whole or not at all, and folders that nothing overwrites by accident."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
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
    except (OSError, ValueError, RecursionError) as error:
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
    """Make an output folder ready; what `check_folder` refuses is refused here too."""
    check_folder(path, resume=resume, overwrite=overwrite)
    with machine_faults(f"opening {path}"):
        path.mkdir(parents=True, exist_ok=True)
        old = contents(path) if overwrite else ()
        for left in [*old, *path.rglob(".*.tmp")]:  # .tmp: of a process killed while it wrote
            whole = left.is_dir() and not left.is_symlink()
            shutil.rmtree(left) if whole else left.unlink(missing_ok=True)


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made where it is missing.

    A file system without locks keeps nobody out. (A network's has them for files opened to be
    written, and not for folders: hence a file.)

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
                raise refusal  # a third one's: the holder before us has just removed what we opened
        except (BlockingIOError, FileNotFoundError) as error:
            raise refusal from error
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)


def check_free(out: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Refuse an output folder that may not be replaced whole by `new_folder`.

    Args:
        out: need not exist.
        overwrite: whether earlier output may be replaced.
        ours: whether a file name is one that the command writes.

    Raises:
        UserError: `out` is a file, or it is not empty and `overwrite` is off, or it holds
            something that is not ours.
    """
    if not out.exists():
        if out.is_symlink():
            raise UserError(f"{out}: a link to nothing; give another --out folder")
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file; --out needs a folder")
    names = sorted(entry.name for entry in out.iterdir())
    if names and not overwrite:
        raise UserError(
            f"{out}: not empty; give another --out folder, or --overwrite to replace it"
        )
    foreign = [name for name in names if not ours(name) or (out / name).is_dir()]
    if foreign:
        raise UserError(
            f"{out}: holds '{foreign[0]}', which this command does not write, so it is not "
            "overwritten; give another --out folder"
        )


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `out` when the block ends without an error.

    Raises:
        UserError, MachineError: the folder cannot be made, filled or moved, for want of permission
            or of space; `out` is then as it was.
    """
    target = out.resolve()
    with machine_faults(f"writing {out}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        build = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
        try:
            build.chmod(0o755)
            yield build
            _swap(build, target)
        finally:
            shutil.rmtree(build, ignore_errors=True)


def _swap(build: Path, out: Path) -> None:
    if not out.exists():
        os.replace(build, out)
        return
    old = build.with_name(build.name.replace(".new-", ".old-"))
    os.replace(out, old)
    try:
        os.replace(build, out)
    except OSError:
        os.replace(old, out)
        raise
    shutil.rmtree(old, ignore_errors=True)
