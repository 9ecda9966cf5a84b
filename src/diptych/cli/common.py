"""Options that several verbs share, and the two ways in which a verb ends."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

FOLDER = click.Path(path_type=Path)
# As in diptych.sampling.solvers.kinds and diptych.diffusion.timesteps, which load NumPy; a test
# holds them together.
SOLVERS = "ddim, ddpm, ddpm-large, ddpm-noisy, dpmpp, dpmpp-sde, euler, heun, plms, pndm or unipc."
SPACINGS = "uniform, quad, trailing, logsnr, karras or official-quad."
USUAL = "uniform; with zero terminal SNR: trailing"

BACKEND = click.option("--backend", default="torch", show_default=True, help="torch or jittor.")
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
RESUME = click.option("--resume", is_flag=True, help="Go on with what is in the folder.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is there.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")


Command = Callable[..., Any]


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click decorators as one, in the order in which help lists them."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


def typed(name: str) -> bool:
    """Whether the command at hand was given this option, and does not have it by default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def hold_streams() -> None:
    """Open /dev/null in place of a standard stream that was closed.

    The next file opened would else get its number, and what is printed would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def leave(code: int) -> NoReturn:
    """End the process; a stream that takes no more is not written to again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr, and leave."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(message.split()))
    with contextlib.suppress(OSError):
        print(f"diptych: {line}", file=sys.stderr, flush=True)
    leave(code)


def printable(text: str) -> str:
    """A text with file names that are not UTF-8 shown with their bytes as escapes."""
    return text.encode(errors="backslashreplace").decode()


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on stdout: as JSON where a program may read it, else for people."""
    click.echo(json.dumps(result, indent=2) if as_json else printable(text))
