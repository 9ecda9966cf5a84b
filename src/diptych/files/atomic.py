"""Atomic file writes: a file is there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diptych.files.paths import check_replaceable, machine_faults


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: renamed to it if the block succeeds, removed if not.

    Its folder is made where it is missing. Only a regular file or a folder is ever replaced.

    Raises:
        UserError: as `check_replaceable`. Otherwise as `machine_faults`.
    """
    check_replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with machine_faults(f"writing {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            _move(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _move(temporary: Path, path: Path) -> None:
    """Put what is whole in its place. An old folder goes last, and comes back if this fails."""
    if not (temporary.is_dir() and path.is_dir() and not path.is_symlink()):
        os.replace(temporary, path)
        return
    old = temporary.with_suffix(".old.tmp")
    os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old)


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
