"""`diptych report`: one page about any runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, QUIET, show
from diptych.cli.completion import RUNS
from diptych.errors import UserError

COLUMNS = click.option(
    "--columns", multiple=True, metavar="ROLE=COLUMN,...",
    help="Logs: columns that are not as guessed; once for all, or once for each log.",
)  # fmt: skip
LABEL = click.option("--label", multiple=True, help="Logs: a label for each, in their order.")


def parsed(columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The values of --columns."""
    from diptych.logs.columns import parse_columns

    return [parse_columns(text) for text in columns]


def log_lines(logs: list[dict[str, Any]]) -> list[str]:
    """One line a log for the terminal: its label and file (once if alike), steps and columns."""
    lines = []
    for log in logs:
        given = log["columns_given"]
        columns = ", ".join(
            f"{role}={name}{'' if role in given else ' (guessed)'}"
            for role, name in log["columns"].items()
        )
        plural = "s" * (log["steps"] != 1)
        rows = f"{log['steps']:,} step{plural}, {log['first_step']:,} to {log['last_step']:,}"
        named = dict.fromkeys((log["label"], log["file"]))
        lines.append(f"{': '.join(named)}, {log['format']}: {rows}; {columns}")
    return lines


@click.command(short_help="Make one page about any runs, or logs of other programs.")
@click.argument("runs", nargs=-1, required=True, type=FOLDER, shell_complete=RUNS)
@click.option("--out", type=FOLDER, help="The report's folder.  [for a study: STUDY/report]")
@click.option(
    "--search", multiple=True, type=FOLDER, help="Also search here for samples, scores, sweeps."
)
@click.option("--logs", is_flag=True, help="RUNS are logs of any program.")
@COLUMNS
@LABEL
@click.option("--markdown", is_flag=True, help="Also Markdown and pictures, for a README.")
@click.option("--language", default="en", show_default=True, help="Language shown first: en or zh.")
@click.option("--static", is_flag=True, help="A page without scripts, only in that language.")
@OVERWRITE
@QUIET
@JSON
def report(
    runs: tuple[Path, ...],
    out: Path | None,
    search: tuple[Path, ...],
    logs: bool,
    columns: tuple[str, ...],
    label: tuple[str, ...],
    markdown: bool,
    language: str,
    static: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make one page about any runs: settings, losses, times, scores, pictures; English and Chinese.

    Samples, scores, sweeps, ladders and profiles are found in the run folders and beside them.
    A run that crashed, is still running or has gaps is reported as such. A folder of `diptych
    reproduce` represents its runs.

    With --logs, or if an argument is a file: a page about logs of any program (CSV, JSON lines,
    TensorBoard events, text, exports of wandb and Trainer), their columns guessed by name.

    \b
    Examples:
      diptych report runs/torch runs/jittor --out report
      diptych report runs/jittor --out report --markdown --language zh
      diptych report studies/mnist
      diptych report --logs torch/loss_step.txt jittor/loss_step.txt --out report --markdown
    """
    from diptych.report.dispatch import report_any
    from diptych.report.sources.study import is_study

    if out is None:
        if logs or len(runs) > 1 or not is_study(runs[0]):
            raise UserError("which folder is the report to go to? Give --out OUT")
        out = runs[0] / "report"  # the study's own page, which is rebuilt
        markdown, overwrite = True, overwrite or out.exists()
    content = report_any(
        runs,
        out,
        search=search,
        logs=logs,
        columns=parsed(columns),
        labels=label,
        markdown_too=markdown,
        language=language,
        static=static,
        overwrite=overwrite,
        progress=not quiet,
    )
    said = [
        sentence[language]
        for section in content["sections"]
        if section["key"] == "short"
        for sentence in section["sentences"]
    ]
    rows = verdict_rows(content["verdict"], language)
    lines = [*log_lines(content["logs"]), ""] if "logs" in content else []
    lines += [*rows, "", *said, f"report: {out / 'index.html'}"]
    show(content, as_json, "\n".join(lines))


def verdict_rows(verdict: list[dict[str, Any]], language: str) -> list[str]:
    """The table of verdicts for the terminal, one line per row."""
    rows = [
        [
            row["what"][language],
            row["a"],
            row["b"],
            row["difference"][language],
            row["verdict"][language],
        ]
        for row in verdict
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(5)]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
