"""`diptych compare`: two runs, two logs of any program, or two files of scores."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, show, typed
from diptych.cli.report import COLUMNS, LABEL, log_lines, parsed, verdict_rows
from diptych.errors import UserError


@click.command(short_help="Compare two runs step by step, two logs, or two files of scores.")
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@click.option("--out", type=FOLDER, help="The folder of the report; for scores a JSON file.")
@click.option("--samples", type=FOLDER, nargs=2, help="A sample folder of each run.")
@click.option("--unmatched", is_flag=True, help="Allow runs that do not share their random draws.")
@click.option("--language", default="en", show_default=True, help="Language shown first: en or zh.")
@click.option("--static", is_flag=True, help="A page without scripts, only in that language.")
@COLUMNS
@LABEL
@click.option("--across", multiple=True, help="Scores: a protocol field that is meant to differ.")
@OVERWRITE
@JSON
def compare(
    run_a: Path,
    run_b: Path,
    out: Path | None,
    samples: tuple[Path, Path] | None,
    unmatched: bool,
    language: str,
    static: bool,
    columns: tuple[str, ...],
    label: tuple[str, ...],
    across: tuple[str, ...],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two runs step by step: verdicts, losses, times, memory; figures and a page.

    Two JSON files of `diptych evaluate` are compared score by score. A difference is only stated
    with its interval; scores with different protocols are refused.

    Two log files of any program (CSV, JSON lines, TensorBoard events, text, exports of wandb and
    Trainer) are compared as far as they go, with or without --out.

    \b
    Examples:
      diptych compare runs/torch runs/jittor --out report
      diptych compare torch/loss_step.txt jittor/loss_step.txt --out report
      diptych compare a.csv b.csv --columns loss=train/loss,step=global_step
      diptych compare torch-score.json jittor-score.json
      diptych compare s10.json s50.json --across sampler.steps --across sampler.timesteps
    """
    from diptych.logs.readers import is_log

    if is_log(run_a) or is_log(run_b):
        if samples or unmatched or across:
            raise UserError("--samples, --unmatched and --across are not for logs")
        _logs(run_a, run_b, out, columns, label, language, static, overwrite, as_json)
        return
    if columns or label:
        raise UserError("--columns and --label are for logs of other programs")
    if ".json" in (run_a.suffix, run_b.suffix):
        from diptych.evaluation.comparison import compare_scores

        if samples or unmatched or static or typed("language"):
            raise UserError(
                "--samples, --unmatched, --static and --language are for runs; these are files of "
                "scores"
            )
        found = compare_scores(run_a, run_b, across, out, overwrite=overwrite)
        show(found, as_json, "\n".join(each["text"] for each in found["differences"]))
        return
    if across:
        raise UserError("--across is for files of scores; these are runs")
    if out is None:
        raise UserError("where to? Give the report's folder with --out")
    from diptych.report.build import compare_runs

    result = compare_runs(
        run_a, run_b, out, samples=samples, overwrite=overwrite, matched=not unmatched,
        language=language, static=static,
    )  # fmt: skip
    sentences = [entry["text"] for entry in result["sentences"]]
    rows = verdict_rows(result["verdict"], "en")
    show(result, as_json, "\n".join([*rows, "", *sentences, f"report: {out / 'index.html'}"]))


def _logs(
    a: Path, b: Path, out: Path | None, columns: tuple[str, ...], label: tuple[str, ...],
    language: str, static: bool, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Compare two logs."""
    from diptych.report.of_logs import compare_logs

    result = compare_logs(
        a, b, out, columns=parsed(columns), names=label, language=language, static=static,
        overwrite=overwrite,
    )  # fmt: skip
    lines = log_lines([result["runs"][key] for key in "ab"])
    lines += ["", *verdict_rows(result["verdict"], language), ""]
    lines += [entry["text"] for entry in result["sentences"]]
    lines += [f"report: {out / 'index.html'}"] if out else []
    show(result, as_json, "\n".join(lines))
