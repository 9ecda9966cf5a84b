"""Temporary folders of work; one whose process was killed is removed by the next work of its kind.

A process holds the folder's lock as long as it lives, however it ends, and removes the folder in
the end. So a folder whose lock names a process, and is held by none, was left by a killed one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from diptych.files.locks import LOCK, hold
from diptych.files.paths import machine_faults


@contextlib.contextmanager
def scratch(kind: str, keep: Path | None = None) -> Iterator[Path]:
    """A temporary folder `diptych-KIND-...`, removed in the end, as are those of killed processes.

    Args:
        kind: a word for the work.
        keep: a folder of the user's to use instead; it is created, and nothing is removed.
    """
    if keep is not None:
        with machine_faults(f"opening {keep}"):
            keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    prefix = f"diptych-{kind}-"
    with machine_faults(f"{tempfile.gettempdir()}: a temporary folder"):
        for other in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            if _is_left(other):
                shutil.rmtree(other, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    try:
        with hold(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """True for this user's folder that a process held which has ended.

    False where that cannot be told: a lock is not named before it is held, and a file system
    without locks refuses the question.
    """
    try:
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            return False
        with (folder / LOCK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return bool(file.read(1))
    except OSError:
        return False
