"""An output folder that appears whole or not at all.

Everything is written to a temporary sibling, which then takes the place of `out`. An existing
folder is replaced only if asked for, and only if it holds nothing but earlier output: no run and
no file of the user's is ever removed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diptych.errors import UserError
from diptych.files import machine_faults


def check_free(out: Path, overwrite: bool, ours: Callable[[str], bool]) -> None:
    """Refuse an output folder that may not be written to.

    Args:
        out: need not exist.
        overwrite: whether earlier output may be replaced.
        ours: whether a file name is one that we write.

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


@contextmanager
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
