"""`diptych compare`: two runs, two logs of any program, or two files of scores."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, QUIET, show, split, typed
from diptych.cli.completion import RUNS
from diptych.cli.report import COLUMNS, LABEL, log_lines, parsed, verdict_rows
from diptych.errors import UserError


@click.command(short_help="Compare two runs step by step, two logs, or two files of scores.")
@click.argument("run_a", type=FOLDER, shell_complete=RUNS)
@click.argument("run_b", type=FOLDER, shell_complete=RUNS)
@click.option("--out", type=FOLDER, help="The folder of the report; for scores a JSON file.")
@click.option("--samples", type=FOLDER, nargs=2, help="A sample folder of each run.")
@click.option("--unmatched", is_flag=True, help="Allow runs that do not share their random draws.")
@click.option("--language", default="en", show_default=True, help="Language shown first: en or zh.")
@click.option("--static", is_flag=True, help="A page without scripts, only in that language.")
@COLUMNS
@LABEL
@click.option(
    "--across", multiple=True, help="Scores: protocol fields that are meant to differ, with commas."
)
@OVERWRITE
@QUIET
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
    quiet: bool,
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
      diptych compare s10.json s50.json --across sampler.steps,sampler.timesteps
    """
    from diptych.logs.readers import is_log

    if ".json" in (run_a.suffix, run_b.suffix) and not (is_log(run_a) or is_log(run_b)):
        from diptych.evaluation.comparison import compare_scores

        if samples or unmatched or static or typed("language") or columns or label:
            raise UserError(
                "--samples, --unmatched, --static, --language, --columns and --label are for runs "
                "or logs; these are files of scores"
            )
        fields = [name for text in across for name in split(text)]
        found = compare_scores(run_a, run_b, fields, out, overwrite=overwrite)
        lines = [each["text"] for each in found["differences"]]
        if found["only_in_one"]:
            lines.append(f"only in one of the two: {', '.join(found['only_in_one'])}")
        show(found, as_json, "\n".join(lines))
        return
    if across:
        raise UserError("--across is for files of scores; these are runs or logs")
    from diptych.report.dispatch import compare_any

    result = compare_any(
        run_a,
        run_b,
        out,
        samples=samples,
        matched=not unmatched,
        columns=parsed(columns),
        labels=label,
        language=language,
        static=static,
        overwrite=overwrite,
        progress=not quiet,
    )
    logs = [log for log in result["runs"].values() if "columns" in log]
    lines = [*log_lines(logs), ""] if logs else []
    lines += [*verdict_rows(result["verdict"], "en"), ""]
    lines += [entry["text"] for entry in result["sentences"]]
    lines += [f"report: {out / 'index.html'}"] if out else []
    show(result, as_json, "\n".join(lines))
