"""Prefetching: a thread makes the next batches while the current step computes.

    thread:  make(start), make(start + 1), ...   at most `depth` items ahead
    caller:  get(start),  get(start + 1),  ...   in the same order

The items do not depend on the thread: `make` is a pure function of the step, so a run gives the
same bits with and without prefetching. Threads suffice: NumPy releases the interpreter's lock in
large copies, and the frameworks release it while they compute.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_JOIN_SECONDS = 5.0


class Prefetch(Generic[T]):
    """Items make(start), make(start + 1), ... made ahead by one daemon thread.

    Args:
        make: makes the item of a step; called in the thread, one step after the other.
        start: the first step.
        stop: the step before which to end; None: never.
        depth: most items that may be finished or in progress before the caller takes one.

    Attributes:
        last_wait: seconds that the latest `get` waited.

    Raises:
        ValueError: depth below 1, or stop below start.
    """

    def __init__(
        self, make: Callable[[int], T], start: int, stop: int | None, depth: int = 2
    ) -> None:
        if depth < 1 or (stop is not None and stop < start):
            raise ValueError(f"depth {depth} must be positive, stop {stop} not below start {start}")
        self.last_wait = 0.0
        self._make, self._next, self._stop, self._depth = make, start, stop, depth
        self._ready: deque[T] = deque()
        self._error: BaseException | None = None
        self._closed = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, args=(start,), name="diptych-prefetch", daemon=True
        )
        self._thread.start()

    def get(self, step: int) -> T:
        """Take the item of `step`, which must follow the previous call's step.

        Raises:
            ValueError: the step is out of order.
            IndexError: the step is at or beyond `stop`.
            RuntimeError: the prefetcher was closed.
            Exception: any error of `make` for this step, once the items before it are taken.
        """
        if step != self._next:
            raise ValueError(f"step {step} asked for out of order; the next one is {self._next}")
        if self._stop is not None and step >= self._stop:
            raise IndexError(f"step {step} is beyond the last one, {self._stop - 1}")
        began = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._error or self._closed.is_set())
            self.last_wait = time.perf_counter() - began
            if self._closed.is_set():
                raise RuntimeError("the prefetcher is closed")
            if not self._ready and self._error is not None:
                raise self._error
            self._next += 1
            self._changed.notify_all()
            return self._ready.popleft()

    def close(self) -> None:
        """End the thread and drop its items; harmless when repeated.

        Returns after the item in progress is done, or after 5 seconds: a `make` that hangs must
        not keep the program from exiting, and the thread is a daemon.
        """
        with self._changed:
            self._closed.set()
            self._ready.clear()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _work(self, step: int) -> None:
        while self._stop is None or step < self._stop:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed.is_set() or len(self._ready) < self._depth
                )
                if self._closed.is_set():
                    return
            try:
                item = self._make(step)
            except BaseException as error:  # any error is passed to the caller
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                if self._closed.is_set():
                    return
                self._ready.append(item)
                self._changed.notify_all()
            step += 1
