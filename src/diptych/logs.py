"""What the library says while it works, as lines on stderr; the command line asks for them.

Library code logs to the loggers below `diptych`: a warning is something that the user should know
of, information is progress. A program that imports Diptych decides itself what becomes of them.
"""

from __future__ import annotations

import logging
import sys


class Lines(logging.Handler):
    """Warnings as `diptych: ...`, on whatever `sys.stderr` is then.

    Information, and a warning that is marked `whole`, is printed as it is.
    """

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING and not getattr(record, "whole", False):
            text = f"diptych: {' '.join(text.split())}"
        text = text.encode(errors="backslashreplace").decode()  # names that are no UTF-8
        print(text, file=sys.stderr, flush=True)


def show() -> None:
    """Show everything from now on; once per process, then a no-op."""
    logger = logging.getLogger("diptych")
    if not any(isinstance(each, Lines) for each in logger.handlers):
        logger.addHandler(Lines())
        logger.setLevel(logging.INFO)
