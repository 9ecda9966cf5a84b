"""`diptych watch` and `diptych list`: runs looked at from another shell; nothing is written."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diptych.cli.common import FOLDER, JSON, printable, show
from diptych.cli.completion import RUNS
from diptych.errors import MachineError, UserError
from diptych.machine.stopping import Stopped

if TYPE_CHECKING:
    from diptych.runs.status import Status

BARS = "▁▂▃▄▅▆▇█"
PLAIN = "_.-=+*#@"  # for a terminal without them
WIDTH = 48  # columns of the sparkline


@click.command(short_help="Show a training as it runs: loss, speed, time left.")
@click.argument("run", type=FOLDER, shell_complete=RUNS)
@click.option("--once", is_flag=True, help="Show it once and end.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True,
    help="Seconds between two looks.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object a look, each on a line.")
def watch(run: Path, once: bool, every: float, as_json: bool) -> None:
    """Show the training in RUN from another shell, or another machine that sees the folder.

    It only reads. It ends when the training does, or on Ctrl-C. In a pipe, each look that finds
    something new is one line.

    \b
    Examples:
      diptych watch runs/mnist
      diptych watch runs/mnist --once --json
    """
    from diptych.runs.status import Follower

    follower = Follower(run)
    redraw = sys.stdout.isatty() and not as_json and not once
    drawn, said = 0, ""
    try:
        while True:
            status = follower.read()
            if as_json:
                click.echo(json.dumps(status.facts()))
            elif redraw:
                lines = block(status)
                click.echo(f"\x1b[{drawn}F\x1b[J" if drawn else "", nl=False)
                # The terminal cuts long lines meanwhile: a wrapped one would be two rows.
                click.echo("\x1b[?7l" + "\n".join(lines) + "\x1b[?7h")
                drawn = len(lines)
            elif once:
                click.echo("\n".join(block(status)))
            elif (text := line(status)) != said:
                click.echo(text)
                said = text
            if once or status.state != "running":
                return
            sys.stdout.flush()
            time.sleep(every)
    except Stopped:
        raise
    except KeyboardInterrupt:  # the training goes on
        return


def block(status: Status) -> list[str]:
    """A status as lines for a terminal."""
    from diptych.figures.numbers import seconds

    of = "" if status.steps is None else f" of {status.steps:,}"
    share = f" ({status.step / status.steps:.0%})" if status.steps else ""
    epoch = "" if status.epoch is None else f", epoch {status.epoch + 1}"
    named = ", ".join(filter(None, (status.backend, status.preset, status.source)))
    lines = [
        f"{status.run}: {status.state} ({named})",
        f"step        {status.step:,}{of}{share}{epoch}",
    ]
    if status.loss is not None:
        lines.append(f"loss        {status.loss:.4f}, mean of the last 100 {status.smoothed:.4f}")
        drawn = sparkline(status.losses)
        lines += [f"            {drawn}"] * bool(drawn)
    if status.validation is not None:
        at, value = status.validation
        lines.append(f"validation  {value:.4f} at step {at:,}")
    if status.steps_per_s:
        left = status.seconds_left
        rest = "" if left is None else f", {seconds(left)} left"
        lines.append(f"speed       {status.steps_per_s:.3g} steps/s{rest}")
    if status.memory_mb is not None:
        lines.append(f"memory      {status.memory_mb:,.0f} MiB")
    if status.grid is not None:
        lines.append(f"grid        {status.grid}")
    if status.unread:
        lines.append(f"note        lines of metrics.jsonl that are no rows: {status.unread}")
    return [printable(each) for each in lines]


def line(status: Status) -> str:
    """A status as one line."""
    parts = [f"{status.run}: {status.state}, step {status.step}"]
    parts += [] if status.loss is None else [f"loss {status.loss:.4f}"]
    if status.validation is not None:
        parts.append(f"validation {status.validation[1]:.4f}")
    return printable(", ".join(parts))


def sparkline(losses: Sequence[float], width: int = WIDTH) -> str:
    """The losses in `width` means, on a logarithmic scale if all are above 0."""
    finite = [value for value in losses if math.isfinite(value)]
    if not finite:
        return ""
    columns = min(width, len(finite))
    means = []
    for k in range(columns):
        part = finite[k * len(finite) // columns : (k + 1) * len(finite) // columns]
        means.append(sum(part) / len(part))
    if min(means) > 0:
        means = [math.log(value) for value in means]
    low, high = min(means), max(means)
    bars = BARS
    try:
        bars.encode(sys.stdout.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        bars = PLAIN
    scale = (len(bars) - 1) / (high - low) if high > low else 0.0
    return "".join(bars[round((value - low) * scale)] for value in means)


@click.command("list", short_help="List the runs below a folder.")
@click.argument("folder", type=FOLDER, default=".")
@JSON
def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs below FOLDER (here by default): state, step, loss, backend, data, newest score.

    It only reads. Runs that cannot be read are named with the reason.

    \b
    Examples:
      diptych list runs
      diptych list runs --json
    """
    from diptych.runs.status import Follower, find_runs, newest_score

    found, unreadable = find_runs(folder)
    beside = sorted(folder.glob("*.json"))
    rows: list[dict[str, Any]] = []
    for run in found:
        try:
            facts = Follower(run, most_bytes=2**18).read().facts()
            rows.append(facts | {"score": newest_score(run, beside)})
        except (UserError, MachineError, OSError) as error:
            unreadable[str(run)] = str(error).removeprefix(str(run)).lstrip(":/ ")
    text = table(rows) if rows else f"{folder}: no runs"
    for place, reason in unreadable.items():
        text += f"\nunreadable: {place}: {reason}"
    show({"runs": rows, "unreadable": unreadable}, as_json, text)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows of `diptych list` as columns."""
    head = ["run", "state", "step", "loss", "validation", "backend", "preset", "data", "score"]
    cells = [head]
    for row in rows:
        of = "" if row["steps"] is None else f"/{row['steps']}"
        score = row["score"]
        cells.append(
            [
                row["run"],
                row["state"],
                f"{row['step']}{of}",
                _number(row["smoothed"]),
                _number(row["validation_loss"]),
                row["backend"] or "-",
                row["preset"] or "own",
                row["source"],
                f"{score['metric']} {score['value']:.4g}" if score else "-",
            ]
        )
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
