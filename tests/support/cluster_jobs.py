"""Tasks of the tests of clusters, importable by Ray's workers."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

from diptych.errors import UserError
from fake_features import Fake


def facts() -> dict[str, object]:
    """What a worker sees of itself."""
    time.sleep(0.2)
    return {
        "pid": os.getpid(),
        "folder": os.getcwd(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "panel": os.environ.get("DIPTYCH_WORKER"),
        "frameworks": sorted({"torch", "jittor"} & set(sys.modules)),
        "statistics": os.environ.get("RAY_USAGE_STATS_ENABLED"),
    }


def warn() -> int:
    logging.getLogger("diptych.test").warning("a damaged\nimage")
    return 3


def refuse(text: str) -> None:
    raise UserError(text)


def die(times: int, folder: Path) -> str:
    """End the worker with SIGKILL, the first `times` times."""
    count = len(list(folder.glob("died-*")))
    if count < times:
        (folder / f"died-{count}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def open_network(name: str, marks: str = "") -> Fake:
    """A feature network; opening it kills the worker, as often as files are in `marks`."""
    for mark in sorted(Path(marks).iterdir()) if marks else ():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return Fake(name)
