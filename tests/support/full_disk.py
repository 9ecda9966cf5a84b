"""Disks that are full or broken, without one: some calls of this process fail for a while."""

from __future__ import annotations

import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """In the block, writing past `size` bytes in any file fails with the system's own error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class _Written:
    """A file whose writes are counted, or refused."""

    def __init__(self, file: Any, ask: Callable[[], None]) -> None:
        self._file, self._ask = file, ask

    def write(self, data: Any) -> int:
        self._ask()
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def failing(number: int, code: int) -> Iterator[list[str]]:
    """The `number`-th call of this process that changes the disk fails with an error code.

    Counted are opening to write, writing, fsync, renaming and making a folder; gives their names as
    they come. Later calls work, as on a disk where another program frees some space.
    """
    asked: list[str] = []

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(*given: Any, **named: Any) -> Any:
            if name == "mkdir" and os.path.isdir(given[0]):
                return call(*given, **named)  # refused, which harms nobody
            asked.append(name)
            if len(asked) == number:
                raise OSError(code, os.strerror(code))
            return call(*given, **named)

        return ask

    real = io.open

    def opened(file: Any, mode: str = "r", *given: Any, **named: Any) -> Any:
        if not set(mode) & set("wax"):
            return real(file, mode, *given, **named)
        found = counted("open", real)(file, mode, *given, **named)
        return _Written(found, counted("write", lambda: None))

    with ExitStack() as stack:
        stack.enter_context(mock.patch("io.open", opened))
        for name in ("fsync", "replace", "mkdir"):
            stack.enter_context(mock.patch.object(os, name, counted(name, getattr(os, name))))
        yield asked
