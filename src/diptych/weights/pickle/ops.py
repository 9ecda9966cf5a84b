"""The instruction stream of a pickle, read with bounds.

    file -> (instruction, argument), ...     at most `MAX_OPERATIONS`, no read beyond the file's end

Decoding is the standard library's (`pickletools.genops`); this module keeps a hostile file from
asking for more memory than its own size warrants.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

Op = tuple[str, Any]

# Weights take about 40 instructions a tensor: 3,000 tensors (a large network with its optimizer
# and EMA) need 120,000. An empty dict costs 1 byte in the file and 64 in memory.
MAX_OPERATIONS = 2_000_000


class Fault(Exception):
    """What is wrong with a file's content; the reader that knows the path makes it a UserError."""


class Bounded:
    """A file whose reads never ask for more than is left, whatever length the file claims."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline()


def show(value: object) -> str:
    """A short one-line text for a name or number out of an untrusted file."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    if isinstance(value, (str, int, float)):
        text = ascii(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return type(value).__name__


def operations(file: Bounded) -> Iterator[Op]:
    """The instructions of the pickle that begins here; the file is left behind its end."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
        if count >= MAX_OPERATIONS:
            raise Fault(f"its pickle has more than {MAX_OPERATIONS:,} instructions")
        yield opcode.name, argument
