"""JSON lines: files that a run appends a row to, read whole or as they grow.

A killed run or a full disk leaves a torn last line. It is marked `last`, so that a reader may leave
it out; any other line that is no JSON carries its error, to be refused or counted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files.reading import parse_json


@dataclass
class Line:
    """One line of a file of rows, without its line break.

    Attributes:
        number: from 1; in a growing file, of the lines read at this time.
        last: only blank lines follow; never so in a growing file.
        ended: a line break follows.
        value: the JSON value, NaN and infinity allowed; None if there is an error.
        error: the reason if it is no JSON, as a blank line is not.
    """

    number: int
    text: bytes
    last: bool = False
    ended: bool = True
    value: Any = field(default=None, init=False)
    error: ValueError | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        try:
            self.value = parse_json(self.text, finite=False)
        except ValueError as error:  # also bytes that are not UTF-8
            self.error = error

    @property
    def blank(self) -> bool:
        return not self.text.strip()


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
        yield Line(number, text, last, ended or not last)


class Tail:
    """Reads a growing file again and again: its last `most_bytes` (None: all), then what is new."""

    def __init__(self, most_bytes: int | None = None) -> None:
        self.most_bytes = most_bytes
        self.file: tuple[int, int] | None = None  # device and inode of what was read
        self.offset = 0

    def read(self, path: Path, forget: Callable[[], None] = lambda: None) -> Iterator[Line]:
        """The new lines; one without its line break is read when it is whole.

        `forget` is called first if it is another file or has become shorter, as a resumed run
        writes it anew: what was read before no longer counts. Raises OSError.
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
                yield Line(number, text[:-1])
