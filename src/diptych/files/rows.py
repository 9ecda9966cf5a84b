"""JSON lines: files that a run appends a row to, read whole or as they grow.

A killed run or a full disk leaves a torn last line. It is marked `last`, so that a reader may leave
it out; any other line that is no JSON carries its error, to be refused or counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files.reading import parse_json


@dataclass(frozen=True)
class Line:
    """One line of a file of rows.

    Attributes:
        number: from 1; in a growing file, of the lines read at this time.
        text: without its line break.
        value: the JSON value, NaN and infinity allowed; None if there is an error.
        error: the reason if it is no JSON; a blank line is none.
        last: only blank lines follow; never so in a growing file.
        ended: a line break follows.
    """

    number: int
    text: bytes
    value: Any
    error: ValueError | None
    last: bool = False
    ended: bool = True

    @property
    def blank(self) -> bool:
        return not self.text.strip()


def _line(number: int, text: bytes, *, last: bool = False, ended: bool = True) -> Line:
    try:
        return Line(number, text, parse_json(text, finite=False), None, last, ended)
    except ValueError as error:  # also bytes that are not UTF-8
        return Line(number, text, None, error, last, ended)


def read_lines(path: Path) -> Iterator[Line]:
    """The lines of a file up to the last that is not blank; none if there is no file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = path.read_bytes() if path.is_file() else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    whole = content.rstrip()
    lines = whole.split(b"\n") if whole else []
    ended = b"\n" in content[len(whole) :]
    for number, text in enumerate(lines, 1):
        last = number == len(lines)
        yield _line(number, text, last=last, ended=ended or not last)


class Tail:
    """Reads a growing file again and again, each time what is new.

    Args:
        most_bytes: how much is read of a new file, from its end; None: all of it.
    """

    def __init__(self, most_bytes: int | None = None) -> None:
        self.most_bytes = most_bytes
        self.file: tuple[int, int] | None = None  # device and inode of what was read
        self.offset = 0

    def read(self, path: Path, forget: Callable[[], None] = lambda: None) -> Iterator[Line]:
        """The new lines; one without its line break is read when it is whole.

        Args:
            forget: called first if it is another file or has become shorter (a resumed run writes
                it anew): what was read before no longer counts.

        Raises:
            OSError: it cannot be read at this moment.
        """
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if self.file != (found.st_dev, found.st_ino) or found.st_size < self.offset:
                forget()
                self.file = (found.st_dev, found.st_ino)
                self.offset = max(0, found.st_size - (self.most_bytes or found.st_size))
                if self.offset:
                    file.seek(self.offset)
                    self.offset += len(file.readline())
            file.seek(self.offset)
            for number, text in enumerate(file, 1):
                if not text.endswith(b"\n"):
                    break
                self.offset += len(text)
                yield _line(number, text[:-1])
