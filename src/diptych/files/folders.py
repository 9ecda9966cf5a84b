"""Output folders that are never overwritten by accident, and appear whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from diptych.errors import UserError
from diptych.files.locks import LOCK, _is_held, hold, hold_place
from diptych.files.paths import check_path, check_replaceable, check_writable, machine_faults

# Files that mark a folder as Diptych's own; --overwrite only replaces such folders.
MARKS = ("config.yaml", "manifest.json", "demo.json", "align.json", "port.json", "sweep.json",
         "parts.json", "cells/torch-*.json", "cells/jittor-*.json")  # fmt: skip


def check_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse an output folder that `claim_folder` would refuse; change nothing.

    Raises:
        UserError: the path is a file, cannot be written, or holds files and neither `resume`
            nor `overwrite` is set; or `overwrite` would delete files that are not Diptych's.
    """
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other; choose one")
    check_path(path)
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
    check_writable(path)


def contents(path: Path) -> list[Path]:
    """The entries of a folder, except the lock file of a process working in it."""
    return [child for child in path.iterdir() if child.name != LOCK]


def claim_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Create an output folder, or prepare an existing one: `overwrite` empties it.

    Temporary files left by killed processes are removed. The caller holds the folder: see
    `output_folder`.

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
    """True if nobody writes a temporary file: its process is gone, and its folder is not held."""
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


@contextlib.contextmanager
def output_folder(path: Path, *, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """Hold an output folder and make it ready: the one policy of every command that writes one.

    Raises:
        UserError: as `hold` and `check_folder`.
    """
    with hold(path):
        claim_folder(path, resume=resume, overwrite=overwrite)
        yield


def check_free(out: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Refuse an output folder that may not be replaced whole by `new_folder`.

    Args:
        out: need not exist.
        overwrite: whether earlier output may be replaced.
        ours: whether a file name is one that the command writes.

    Raises:
        UserError: `out` is a file, or it is not empty and `overwrite` is off, or it holds
            something that is not ours. Otherwise as `check_replaceable`.
    """
    check_replaceable(out)
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
            or of space, or another process writes it; `out` is then as it was.
    """
    target = out.resolve()
    with hold_place(target), machine_faults(f"writing {out}"):
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
