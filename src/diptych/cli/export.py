"""`diptych export`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, show
from diptych.cli.completion import RUNS


@click.command(short_help="Write a run's loss_step.txt and metrics.csv.")
@click.argument("run", type=FOLDER, shell_complete=RUNS)
@click.option("--out", type=FOLDER, help="Their folder.  [default: the run folder]")
@OVERWRITE
@JSON
def export(run: Path, out: Path | None, overwrite: bool, as_json: bool) -> None:
    """Write RUN's losses and metrics as the files that reproductions hand in.

    loss_step.txt has a line `epoch: 1, step: 1, loss: 0.977211` per step, metrics.csv every number
    of every step. `diptych train --export` writes them when a training ends.

    \b
    Examples:
      diptych export runs/jittor
      diptych export runs/jittor --out handed-in/jittor
    """
    from diptych.runs.export import export as write

    found = write(run, out, overwrite)
    lines = [f"{found['steps']:,} steps: {', '.join(found['files'])}"]
    missing = sum(last - first + 1 for first, last in found["gaps"])
    if missing:
        lines.append(f"{missing:,} steps are missing in the record, first {found['gaps'][0][0]}")
    lines += [f"{found['repeated']:,} repeated rows are left out"] * bool(found["repeated"])
    lines += ["an unfinished last line is left out"] * bool(found["torn"])
    show(found, as_json, "\n".join(lines))
