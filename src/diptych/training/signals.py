"""Orderly exit: on Ctrl-C and SIGTERM the current work finishes and is saved."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class Signals:
    """Record SIGINT and SIGTERM so that the loop finishes its step; a second SIGINT interrupts.

    A second SIGTERM does not: a cluster's may come to every process and be passed on as well.

    Args:
        say: tell so on stderr: a grid or a checkpoint can take a while.
    """

    def __init__(self, say: bool = True) -> None:
        self.received = 0
        self.say = say
        self.owner = os.getpid()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._note)
        except ValueError:
            pass  # not the main thread: the caller handles signals
        return self

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self.owner:  # a compiler process forked while our handlers are installed
            os._exit(128 + number)
        if self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = number
        if self.say:  # by `write`: a handler may run while a stream is at work
            os.write(2, b"\ndiptych: stops after this step, saved; Ctrl-C (again) stops at once\n")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
