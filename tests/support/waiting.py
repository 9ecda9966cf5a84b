"""Waiting for a state, however long it takes; the deadline only matters where something hangs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

PATIENCE = 300.0  # seconds: a machine five times slower, or a worker that was paused, still passes


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until `true()` holds."""
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.02)


def written(path: Path) -> bool:
    """True if a file is there and not empty."""
    return path.is_file() and path.stat().st_size > 0


def running(number: int) -> bool:
    """True if a process runs; one that has ended and is not yet collected does not."""
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
