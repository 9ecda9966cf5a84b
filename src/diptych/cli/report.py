"""`diptych report`: any runs as one page."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, show
from diptych.errors import UserError


@click.command(short_help="Make one page about any runs.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, help="The folder of the report; of a study: STUDY/report.")
@click.option(
    "--search", multiple=True, type=FOLDER, help="Where else samples, scores, sweeps may lie."
)
@click.option("--markdown", is_flag=True, help="Also Markdown and pictures, for a README.")
@click.option("--language", default="en", show_default=True, help="Shown first: en or zh.")
@OVERWRITE
@JSON
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    search: tuple[Path, ...],
    markdown: bool,
    language: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """One page about any runs: settings, losses, times, scores, pictures; English and Chinese.

    Samples, scores, sweeps, ladders and profiles are found in the run folders and beside them.
    A run that crashed, still runs or has gaps is reported as what it is. A folder of `diptych
    reproduce` stands for its runs.

    \b
    Examples:
      diptych report runs/torch runs/jittor --out report
      diptych report runs/jittor --out report --markdown --language zh
      diptych report studies/mnist
    """
    from diptych.report.plan import is_study
    from diptych.report.report import report_runs

    if out is None:
        if len(runs) > 1 or not is_study(runs[0]):
            raise UserError("which folder is the report to go to? Give --out OUT")
        out = runs[0] / "report"  # as the study makes it: its own page is made anew
        markdown, overwrite = True, overwrite or out.exists()
    content = report_runs(
        runs, out, search=search, markdown_too=markdown, language=language, overwrite=overwrite
    )
    said = [sentence[language] for section in content["sections"] if section["key"] == "short"
            for sentence in section["sentences"]]  # fmt: skip
    show(content, as_json, "\n".join([*said, f"report: {out / 'index.html'}"]))
