"""`diptych compare`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, show


@click.command()
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The folder of the report.")
@click.option("--samples", type=FOLDER, nargs=2, help="A sample folder of each run.")
@click.option("--unmatched", is_flag=True, help="Runs that do not share their random draws.")
@OVERWRITE
@JSON
def compare(
    run_a: Path,
    run_b: Path,
    out: Path,
    samples: tuple[Path, Path] | None,
    unmatched: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two runs step by step: losses, times, memory; figures and a page.

    \b
    Example:
      diptych compare runs/torch runs/jittor --out report
    """
    from diptych.report.compare import compare_runs

    result = compare_runs(
        run_a, run_b, out, samples=samples, overwrite=overwrite, matched=not unmatched
    )
    sentences = [entry["text"] for entry in result["sentences"]]
    show(dict(result), as_json, "\n".join([*sentences, f"report: {out / 'index.html'}"]))
