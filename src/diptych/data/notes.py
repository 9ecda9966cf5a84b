"""Notes about pictures left out of a data set, each logged once per process."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)

_SAID: set[str] = set()


def note(text: str) -> None:
    """Warn in one line, unless already done; the command line prints the text unchanged."""
    if text not in _SAID:
        _SAID.add(text)
        log.warning("note: %s", text, extra={"whole": True})
