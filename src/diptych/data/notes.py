"""Notes on stderr about what was left out of a data set, each said once in a process."""

from __future__ import annotations

import sys
from collections.abc import Mapping

_SAID: set[str] = set()


def note(text: str) -> None:
    """One line on stderr, unless it was said before."""
    if text not in _SAID:
        _SAID.add(text)
        print(f"note: {text}".encode(errors="backslashreplace").decode(), file=sys.stderr)


def say_left_out(name: str, count: int, left_out: Mapping[str, int]) -> None:
    """How many pictures are used of `name`, and how many files are not, by reason."""
    if left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())
        note(f"{name}: {count:,} pictures; left out: {reasons}")
