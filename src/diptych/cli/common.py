"""Options that several verbs share, and the two ways to end a verb."""

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

from diptych.cli.completion import SOLVERS
from diptych.config.size import EXPECTED, Size, checked_size
from diptych.errors import UserError, nearest, one_line
from diptych.ranks import Part, Ranks, own_gpu
from diptych.sampling.options import FIELDS, NAMES, SamplerOptions, option_name

FOLDER = click.Path(path_type=Path)
BACKEND = click.option("--backend", default="torch", show_default=True, help="torch or jittor.")
OWN_BACKEND = click.option(
    "--backend",
    help="torch or jittor; or onnx or openvino, engines that only predict.  "
    "[default: the one that trained the model; torch]",
)
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
RESUME = click.option("--resume", is_flag=True, help="Resume the work in the folder.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing output.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")
SEED = click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Keys all noise; with --repeats, that of the first set.",
)
RAW = click.option("--raw", is_flag=True, help="Non-EMA weights: as trained, not averaged.")


class _Size(click.ParamType):  # type: ignore[type-arg]
    """The size of an image; see `diptych.config.size`."""

    name = "N|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> Size:
        with contextlib.suppress(ValueError):
            return checked_size(int(value) if str(value).isdecimal() else value)
        raise UserError(f"--size {value}: {EXPECTED}")


SIZE = _Size()
ON = click.option(
    "--on", metavar="ray[:ADDRESS]", help="Share the work by Ray: on this machine, or a cluster."
)


Command = Callable[..., Any]


class AtOnce(click.ParamType):  # type: ignore[type-arg]
    """A number, or `auto`, which is None."""

    name = "integer|auto"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | None:
        if value in (None, "auto"):
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"'{value}' is neither a number nor auto", param, ctx)


AT_ONCE: dict[str, Any] = {
    "type": AtOnce(), "default": "auto", "show_default": "64 on a CPU; on a GPU by the network",
}  # fmt: skip


def options(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several click decorators as one; help lists their options in this order."""

    def apply(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return apply


DETERMINISTIC = click.option(
    "--deterministic", is_flag=True, help="The same bits in every run on this device; slower."
)
ARITHMETIC = options(
    click.option(
        "--precision",
        default="fp32",
        show_default=True,
        help="Of the network: fp32, tf32 or bf16; all else is float32.",
    ),
    DETERMINISTIC,
)


def sampler_options(*names: str, **changes: dict[str, Any]) -> Callable[[Command], Command]:
    """The options of a sampler, by default all of them; see `SamplerOptions`.

    Args:
        names: fields; none: every field.
        changes: by field, click settings that replace the defaults.
    """
    made = []
    for name in names or NAMES:
        facts, flag = FIELDS[name].metadata, option_name(name)
        settings: dict[str, Any] = {"help": facts["help"]} | changes.get(name, {})
        if facts["kind"] is bool:
            flag = f"{flag}/--no-{flag}"
            settings.setdefault("default", None)
        else:
            settings.setdefault("type", facts["kind"])
        if name == "solver":
            settings.setdefault("shell_complete", SOLVERS)
        made.append(click.option(f"--{flag}", name, **settings))
    return options(*made)


def chosen_options(given: dict[str, Any]) -> SamplerOptions:
    """Pop the sampler settings from a command's options, as `read_options` reads them."""
    from diptych.weights.found_steps import read_options

    found, said = read_options({name: given.pop(name) for name in NAMES if name in given})
    say(said)
    return found


def backend_of(asked: str | None, source: str | Path) -> str:
    """The backend for a model: as asked, else the one that trained it; see `backends.choose`."""
    from diptych.backends import choose
    from diptych.weights.find import trained_by

    return choose(asked, trained_by(source))


def part_of(ranks: Ranks, asked: str | None) -> Part | None:
    """The part of a job that this process does, as `--part` or its launcher says; None: all.

    A launched process sees its own GPU from then on.

    Raises:
        UserError: both say one, or `asked` is no part.
    """
    if asked is not None and not ranks.alone:
        raise UserError(
            f"--part {asked}, and {ranks.launcher} started {ranks.world} processes, which are "
            f"parts already; leave one of them out"
        )
    own_gpu(ranks)
    return Part.parse(asked) if asked is not None else Part.of(ranks)


def check_parts_folder(out: Path, part: Part | None, *, resume: bool, overwrite: bool) -> None:
    """`check_folder` for a folder that parts share: a part joins what another one has begun."""
    from diptych.files import check_folder

    if part is not None and overwrite:
        raise UserError("--overwrite would delete the other parts' work; empty --out first")
    joins = part is not None and (out / "manifest.json").exists()
    check_folder(out, resume=resume or joins, overwrite=overwrite)


def show_parts_folder(
    manifest: dict[str, Any],
    out: Path,
    part: Part | None,
    as_json: bool,
    text: Callable[[dict[str, Any]], str],
) -> None:
    """Print a folder's manifest, in `text`'s words if all its parts are there."""
    said = text(manifest) if manifest["complete"] else missing_parts(part, out)
    show({"out": str(out), **manifest}, as_json, said)


def missing_parts(part: Part | None, out: Path) -> str:
    """The line of a part that is not the last one; "" without a part."""
    return f"part {part.number} of {part.count} is done, others are not: {out}" if part else ""


def check_on(on: str | None, part: Part | None) -> None:
    """Refuse `--on` in one of several parts, or with a value that is no address (UserError)."""
    from diptych.machine.cluster import address_of

    if on is not None:
        address_of(on)
        if part is not None:
            raise UserError(f"--on {on} shares the work itself; leave --part and launchers out")


def say_again(times: int, what: str) -> None:
    """Say on stderr how often a part of the work was tried again after a lost worker."""
    if times:
        say(f"{what} tried again after a lost worker: {times}")


def say(line: str | None) -> None:
    """Print a line on stderr; None prints nothing."""
    if line is not None:
        click.echo(line, err=True)


def split(text: str | None) -> tuple[str, ...]:
    """The names of a list such as `a, b`; none of an option that was not given.

    Raises:
        UserError: it was given, and names nothing: what is meant by that would be a guess.
    """
    found = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not found:
        raise UserError("a list of names is empty; name something, or leave the option out")
    return found


def typed(name: str) -> bool:
    """True if the option was given on the current command line, not left at its default."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def hold_streams() -> None:
    """Open /dev/null in place of a standard stream that was closed.

    Otherwise the next file opened would get its number, and printed text would go into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def leave(code: int) -> NoReturn:
    """End the process; a stream that can no longer be written is redirected to /dev/null."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


class Verbs(click.Group):
    """A command group that suggests the nearest verb if one is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            asked = " ".join([*ctx.command_path.split()[1:], args[0]])
            raise UserError(f"verb '{asked}' is not known{nearest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


def fail(message: str, code: int) -> NoReturn:
    """Print one line on stderr and exit."""
    line = one_line(message)
    with contextlib.suppress(OSError):
        print(f"diptych: {line}", file=sys.stderr, flush=True)
    leave(code)


def printable(text: str) -> str:
    """The text with the bytes of non-UTF-8 file names as escapes."""
    return text.encode(errors="backslashreplace").decode()


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """Print the result on stdout: as JSON for programs, or as text for people."""
    click.echo(json.dumps(result, indent=2) if as_json else printable(text))
