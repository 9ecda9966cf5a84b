"""The command line shared by both benchmarks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks import driver, results, sizes, table
from benchmarks.job import CONTENDERS, KNOWN
from diptych.errors import MachineError, UserError
from diptych.files import write_json, write_text
from diptych.machine.processor import cores

COUNT = click.IntRange(min=1)


def command(task: str, text: str) -> click.Command:
    """Make the command of a task; `text` is its help."""

    @click.command(help=text)
    @click.option(
        "--preset",
        "presets",
        multiple=True,
        default=("mnist",),
        show_default=True,
        help=f"Size of the network; may be repeated: {', '.join(sizes.NAMES)}.",
    )
    @click.option(
        "--contenders",
        default=",".join(CONTENDERS),
        show_default=True,
        help=f"The contenders, in this order, of {', '.join(KNOWN)}.",
    )
    @click.option("--rounds", type=COUNT, help="Rounds that count.  [default: by size]")
    @click.option("--steps", type=COUNT, help="Steps (or NFE) per turn.  [default: by size]")
    @click.option("--batch", type=COUNT, help="Images per step.  [default: by size]")
    @click.option(
        "--warmup",
        type=click.IntRange(min=0),
        default=2,
        show_default=True,
        help="Warm-up rounds, which are dropped.",
    )
    @click.option("--threads", type=COUNT, help="OpenMP threads of each contender [all cores].")
    @click.option(
        "--heap",
        type=click.Choice(["own", "kept"]),
        default="own",
        show_default=True,
        help="own: each contender's allocator as it comes, of which the PyTorch panel's keeps "
        "freed memory; kept: all keep it.",
    )
    @click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:INDEX.")
    @click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the table.")
    @click.option(
        "--out",
        type=click.Path(path_type=Path),
        help="Also write the results to OUT.json and the tables to OUT.md.",
    )
    def main(**options: Any) -> None:
        _guard(lambda: _run(task, **options))

    return main


def _run(
    task: str, presets: tuple[str, ...], contenders: str, rounds: int | None, steps: int | None,
    batch: int | None, warmup: int, threads: int | None, heap: str, device: str, as_json: bool,
    out: Path | None,
) -> None:  # fmt: skip
    names = driver.check([name.strip() for name in contenders.split(",")], task)
    chosen = [sizes.size(name) for name in presets]
    given = {"rounds": rounds, "steps": steps, "batch": batch}
    changes = {key: value for key, value in given.items() if value is not None}
    found = []
    for size in chosen:
        amount = replace(size.training if task == "training" else size.sampling, **changes)
        plan = driver.Plan(task, size, amount, warmup, names, device, threads or cores(), heap)
        found.append(results.digest(driver.run(plan)))
        if not as_json:
            click.echo(table.render(found[-1]) + "\n")
    if as_json:
        click.echo(json.dumps({"results": found}, indent=2, allow_nan=False))
    if out is not None:
        _write(out, found)


def _write(out: Path, found: list[dict[str, Any]]) -> None:
    base = out.with_suffix("") if out.suffix in (".json", ".md") else out
    write_json(base.with_name(base.name + ".json"), {"results": found})
    text = "\n\n".join(table.render(each, markdown=True) for each in found)
    write_text(base.with_name(base.name + ".md"), text + "\n")


def _guard(work: Callable[[], None]) -> None:
    """Turn a UserError or MachineError of `work` into one line and an exit code."""
    try:
        work()
    except (UserError, MachineError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
