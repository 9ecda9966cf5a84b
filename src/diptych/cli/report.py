"""`diptych report`: one page about any runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, show
from diptych.errors import UserError


@click.command(short_help="Make one page about any runs.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="The report's folder.  [for a study: STUDY/report]")
@click.option(
    "--search", multiple=True, type=FOLDER, help="Also search here for samples, scores, sweeps."
)
@click.option("--markdown", is_flag=True, help="Also Markdown and pictures, for a README.")
@click.option("--language", default="en", show_default=True, help="Language shown first: en or zh.")
@click.option("--static", is_flag=True, help="A page without scripts, only in that language.")
@OVERWRITE
@JSON
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    search: tuple[Path, ...],
    markdown: bool,
    language: str,
    static: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make one page about any runs: settings, losses, times, scores, pictures; English and Chinese.

    Samples, scores, sweeps, ladders and profiles are found in the run folders and beside them.
    A run that crashed, is still running or has gaps is reported as such. A folder of `diptych
    reproduce` represents its runs.

    \b
    Examples:
      diptych report runs/torch runs/jittor --out report
      diptych report runs/jittor --out report --markdown --language zh
      diptych report studies/mnist
    """
    from diptych.report.build import report_runs
    from diptych.report.sources.study import is_study

    if out is None:
        if len(runs) > 1 or not is_study(runs[0]):
            raise UserError("which folder is the report to go to? Give --out OUT")
        out = runs[0] / "report"  # the study's own page, which is rebuilt
        markdown, overwrite = True, overwrite or out.exists()
    content = report_runs(
        runs, out, search=search, markdown_too=markdown, language=language, static=static,
        overwrite=overwrite,
    )  # fmt: skip
    said = [sentence[language] for section in content["sections"] if section["key"] == "short"
            for sentence in section["sentences"]]  # fmt: skip
    rows = verdict_rows(content["verdict"], language)
    show(content, as_json, "\n".join([*rows, "", *said, f"report: {out / 'index.html'}"]))


def verdict_rows(verdict: list[dict[str, Any]], language: str) -> list[str]:
    """The table of verdicts for the terminal, one line per row."""
    rows = [
        [row["what"][language], row["a"], row["b"], row["difference"][language],
         row["verdict"][language]]
        for row in verdict
    ]  # fmt: skip
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip
