"""Errors caused by the user or the machine; anything else is a bug and keeps its traceback.

The command line prints such an error as one line and exits with its exit code.
A message says what is wrong, where, what was expected, and what to do next.

Library code logs notices to the loggers below `diptych`: a warning is something that the user
should know, information is progress. A program that imports Diptych decides what becomes of them;
the command line shows them as lines on stderr (`show_notices`).
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import ContextDecorator
from types import TracebackType


def one_line(text: str) -> str:
    """The text on one line: white space folded, other characters that cannot be shown escaped."""
    folded = " ".join(text.split())
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in folded)


class UserError(Exception):
    """An unusable request or input from the user; exit code 2. Its message is one line."""

    exit_code = 2

    def __init__(self, message: str = "", *rest: object) -> None:
        super().__init__(one_line(message), *rest)


# In the environment of a study's stages: `diptych reproduce` itself says what was interrupted, and
# how to go on. A stage's own advice would name a command and a folder that are not the user's.
STAGE = "DIPTYCH_STAGE"


class Interrupted(Exception):
    """The user or the system asked the work to stop; it was saved first. Exit code 128 + signal."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Followed(Exception):
    """This rank ends because the training of all ranks does; rank 0 says why. Exit code: its."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StopTraining(Exception):
    """Raised by a callback of `train`: end after the step at hand, saved, as after a signal."""


class MachineError(Exception):
    """A failure of the machine (full disk, no permission, out of memory); exit code 1."""

    exit_code = 1


def nearest(word: str, known: list[str]) -> str:
    """The hint `; did you mean 'known'?` for a misspelt word, or a list of the known words."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"


# Options of the command line that have another name in Python, those that are yes or no, and those
# whose value a message gives.
_NAMES = {"data": "data_dir", "class": "classes", "data-source": "data", "sample-batch": "batch"}
_FLAGS = ("resume", "overwrite", "raw", "clip", "allow-changed-data")
_VALUED = ("backend", "device", "solver", "spacing", "features", "protocol", "eta", "guidance")
_NO_VALUE = ("and", "or", "is", "out", "to", "takes", "with", "for")
_VALUE = r"[A-Za-z0-9_./:-]*[A-Za-z0-9_]"


def in_python(text: str, names: dict[str, str] | None = None) -> str:
    """A message about options as one about arguments: `--device cpu` as `device="cpu"`.

    Args:
        text: a message that the command line would print.
        names: options, without dashes, with the argument that each one is here.
    """
    known = _NAMES | (names or {})

    def quoted(value: str) -> str:
        return value if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?|true|false", value) else f'"{value}"'

    def argument(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        rest = "" if value is None else f" {value}"
        if name.startswith("no-"):
            return f"{name[3:]}=False{rest}"
        if name in _FLAGS and name not in known:
            return f"{name.replace('-', '_')}=True{rest}"
        name_here = known.get(name, name.replace("-", "_"))
        if value is None or name not in _VALUED or value in _NO_VALUE:
            return name_here + rest
        return f"{name_here}={quoted(value)}"

    text = re.sub(
        rf"--set ([\w.]+)=({_VALUE})?",
        lambda found: f'set={{"{found[1]}": {quoted(found[2]) if found[2] else "..."}}}',
        text,
    )
    return re.sub(rf"--([a-z][a-z-]*[a-z])(?: ({_VALUE}))?", argument, text)


class PythonTerms(ContextDecorator):
    """Inside, a `UserError` speaks of arguments and not of options; see `in_python`."""

    def __init__(self, **names: str) -> None:
        self.names = names

    def __enter__(self) -> PythonTerms:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UserError):
            error.args = (in_python(str(error), self.names), *error.args[1:])


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


def show_notices() -> None:
    """Show everything from now on; once per process, then a no-op."""
    logger = logging.getLogger("diptych")
    if not any(isinstance(each, Lines) for each in logger.handlers):
        logger.addHandler(Lines())
        logger.setLevel(logging.INFO)
