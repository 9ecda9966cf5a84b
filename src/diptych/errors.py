"""Errors caused by the user or the machine; anything else is a bug and keeps its traceback.

The command line prints such an error as one line and exits with its exit code.
A message says what is wrong, where, what was expected, and what to do next.

Library code logs notices to the loggers below `diptych`: a warning is something that the user
should know, information is progress. A program that imports Diptych decides what becomes of them;
the command line shows them as lines on stderr (`show_notices`).
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import ContextDecorator
from functools import wraps
from numbers import Integral, Real
from types import TracebackType
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


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


# Arguments of the Python API

KINDS: dict[type, tuple[Any, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    str: (str, "a string"),
}


def refused(name: str, value: object, expected: str) -> UserError:
    """The error for an argument of the wrong type or value."""
    shown = one_line(repr(value))
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return UserError(f"{name}: expected {expected}, not {shown}")


def check(kind: type, least: int | None = None, none: bool = False, **given: Any) -> None:
    """Raise UserError unless each argument is an int, a float or a str, as `kind` says.

    Args:
        kind: int, float or str; NumPy's numbers are numbers too.
        least: the least value of a number.
        none: None is allowed.
        given: the arguments by name.
    """
    base, expected = KINDS[kind]
    if least is not None:
        expected += f", {least} or more"
    for name, value in given.items():
        if value is None and none:
            continue
        fits = isinstance(value, base) and not isinstance(value, bool)
        if not fits or (least is not None and value < least):
            raise refused(name, value, expected)


def path_text(name: str, value: object, expected: str = "a path") -> str:
    """The text of a path, a `Run` or another path-like object; UserError if it is none."""
    if not isinstance(value, str | os.PathLike) or not (text := os.fspath(value)):
        raise refused(name, value, expected)
    return str(text)


def several(name: str, value: object, expected: str) -> list[object]:
    """A list of one string or path, or of the items of an iterable; UserError if it is neither."""
    if isinstance(value, str | os.PathLike):
        return [value]
    if not isinstance(value, Iterable):
        raise refused(name, value, expected)
    return list(value)


# Options of the command line that have another name in Python, those that are yes or no, and those
# whose value a message gives.
_NAMES = {"data": "data_dir", "class": "classes", "data-source": "data", "sample-batch": "batch"}
_FLAGS = ("resume", "overwrite", "raw", "clip", "allow-changed-data")
_VALUED = ("backend", "device", "solver", "spacing", "features", "protocol", "eta", "guidance",
           "crop")  # fmt: skip
_NO_VALUE = ("and", "or", "is", "out", "to", "takes", "with", "for")
_VALUE = r"[A-Za-z0-9_./:-]*[A-Za-z0-9_]"
# Commands, which Python's terms leave as they are: in backquotes, or up to the end of the clause.
_COMMAND = re.compile(
    r"(settings to keep: .*|(?:--out folder of )?(?:`[^`]*`|"
    r"(?<![\w./-])(?:diptych [a-z]|(?:srun|torchrun|mpirun|python -m|pip install) )"
    r"(?: '[^']*'|\.\.\.|[^`;()\s,:.]|[,:.](?!\s|$)|\s(?!\())*))"
)


def in_python(text: str, names: dict[str, str] | None = None) -> str:
    """A message about options as one about arguments: `--device cpu` as `device="cpu"`.

    Commands in it stay as they are: they are for a shell.

    Args:
        text: a message that the command line would print.
        names: options, without dashes, with the argument that each one is here; `...` in it stands
            for the value.
    """
    known = _NAMES | (names or {})

    def quoted(value: str) -> str:
        return value if re.fullmatch(r"-?[0-9.]+(e-?[0-9]+)?|true|false", value) else f'"{value}"'

    def valued(here: str, value: str) -> str:
        return here.replace("...", quoted(value), 1) if "..." in here else f"{here}={quoted(value)}"

    def refused(found: re.Match[str]) -> str:
        return f"{valued(known.get(found[1], found[1].replace('-', '_')), found[2])}: "

    def argument(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        rest = "" if value is None else f" {value}"
        if name.startswith("no-"):
            return f"{name[3:]}=False{rest}"
        if name in _FLAGS and name not in known:
            return f"{name.replace('-', '_')}=True{rest}"
        here = known.get(name, name.replace("-", "_"))
        if value is None or value in _NO_VALUE:
            return here + rest
        numbered = "..." in here and value[0].isdigit()
        return valued(here, value) if numbered or name in _VALUED else here + rest

    def translated(text: str) -> str:
        text = re.sub(
            rf"--set ([\w.]+)=({_VALUE})?",
            lambda found: f'set={{"{found[1]}": {quoted(found[2]) if found[2] else "..."}}}',
            text,
        )
        text = re.sub(rf"--([a-z][a-z-]*[a-z])(?: ({_VALUE}))?", argument, text)
        return text.replace("} set={", ", ")

    text = re.sub(r"^--(?!set )([a-z][a-z-]*[a-z]) (\S+): ", refused, text)
    parts = _COMMAND.split(text)
    return "".join(part if i % 2 else translated(part) for i, part in enumerate(parts))


class PythonTerms(ContextDecorator):
    """Inside, a `UserError` speaks of arguments and not of options; see `in_python`.

    As a decorator it also refuses anything but True or False (or None, where the annotation has it)
    for the arguments that are annotated so: any word counts as true.
    """

    def __init__(self, **names: str) -> None:
        self.names = names

    def __call__(self, function: F) -> F:
        names = tuple(inspect.signature(function).parameters)
        flags = {
            name: kind == "bool | None"
            for name, kind in function.__annotations__.items()
            if kind in ("bool", "bool | None") and name != "return"
        }

        @wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            for name, value in (*zip(names, args, strict=False), *given.items()):
                none = name in flags and flags[name] and value is None
                if name in flags and not none and type(value).__name__ not in ("bool", "bool_"):
                    raise refused(name, value, "True or False")
            return function(*args, **given)

        return super().__call__(cast(F, checked))

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
