"""A thread that writes while training goes on, one file or folder after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

log = logging.getLogger(__name__)


class Writer:
    """Writes in a thread; what is handed over must be a copy.

    Leaving the `with` block waits for the last write. If the block fails, an error of that write is
    logged, not raised.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="diptych-writer")
        self._last: Future[Any] | None = None

    def begin(self, write: Callable[..., Any], *given: Any) -> None:
        """Begin `write(*given)` once the write before is done. Raises the error of that one."""
        self.wait()
        self._last = self._pool.submit(write, *given)

    def wait(self) -> None:
        """Wait until the write is done. Raises its error, once."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    @property
    def failed(self) -> bool:
        """True if the write has failed, and nobody has been told."""
        return self._last is not None and self._last.done() and self._last.exception() is not None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            self.wait()
        elif self.failed and self._last is not None:
            log.warning("the last checkpoint was not written: %s", self._last.exception())
