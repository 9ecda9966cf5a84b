"""SIGTERM, as a cluster sends it, ends a command as Ctrl-C does: temporary folders are removed, one
line is said. Without a handler it would end the process at once."""

from __future__ import annotations

import os
import signal
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A signal other than Ctrl-C's asks for an end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def stop_in_order() -> None:
    """Raise `Stopped` in this process when SIGTERM comes; processes forked from it end at once.

    A worker of a pool that waits for a lock would else not hear it, and the pool's end waits for
    the worker.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def ending(stop: BaseException) -> tuple[str, int]:
    """Word and exit code: "interrupted", 130 after Ctrl-C, "terminated", 143 after SIGTERM.

    Args:
        stop: `KeyboardInterrupt`, or an error raised from it.
    """
    number: int = getattr(stop.__cause__ or stop, "number", signal.SIGINT)
    return "terminated" if number == signal.SIGTERM else "interrupted", 128 + number
