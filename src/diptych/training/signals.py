"""Leaving in order: Ctrl-C and SIGTERM let the work at hand finish and be saved."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class Signals:
    """Notes SIGINT and SIGTERM while the loop finishes its step; a second one is immediate."""

    def __init__(self) -> None:
        self.received = 0
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
        if os.getpid() != self.owner:  # a compiler process forked while we are in charge
            os._exit(128 + number)
        if self.received:
            raise KeyboardInterrupt
        self.received = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
