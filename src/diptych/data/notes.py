"""Notes about pictures left out of a data set, each logged once per process."""

from __future__ import annotations

import logging
from collections.abc import Mapping

log = logging.getLogger(__name__)

_SAID: set[str] = set()


def note(text: str) -> None:
    """Warn in one line, unless already done; the command line prints the text unchanged."""
    if text not in _SAID:
        _SAID.add(text)
        log.warning("note: %s", text, extra={"whole": True})


def say_left_out(name: str, count: int, left_out: Mapping[str, int]) -> None:
    """Note how many pictures of `name` are used and how many files are not, by reason."""
    if left_out:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in left_out.items())
        note(f"{name}: {count:,} pictures; left out: {reasons}")
