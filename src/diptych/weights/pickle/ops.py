"""A bounded reader of a pickle's instruction stream.

    file -> (instruction, argument), ...     at most `MAX_OPERATIONS`, no read beyond the file's end

The standard library (`pickletools.genops`) decodes; this module prevents a hostile file from
claiming more memory than its size justifies.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, Any

Op = tuple[str, Any]

# Weights take about 40 instructions per tensor: 3,000 tensors (a large network with its optimizer
# and EMA) need 120,000. An empty dict takes 1 byte in the file and 64 in memory.
MAX_OPERATIONS = 2_000_000


class Fault(Exception):
    """A fault in a file's content; the reader that knows the path turns it into a UserError."""


class Bounded:
    """A file whose reads never exceed the remaining bytes, whatever length the file claims."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    def tell(self) -> int:
        return self._file.tell()

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._size - self._file.tell())))

    def readline(self) -> bytes:
        return self._file.readline()


def show(value: object) -> str:
    """A short one-line text for a name or number from an untrusted file."""
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a number beyond 64 bits"
    if isinstance(value, (str, int, float)):
        text = ascii(value)
        return text if len(text) <= 80 else text[:77] + "..."
    return type(value).__name__


def operations(file: Bounded) -> Iterator[Op]:
    """The instructions of the pickle that begins here; leaves the file position after its end."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):  # type: ignore[arg-type]
        if count >= MAX_OPERATIONS:
            raise Fault(f"its pickle has more than {MAX_OPERATIONS:,} instructions")
        yield opcode.name, argument
