"""The report of a whole study: a folder that `diptych reproduce` fills."""

from __future__ import annotations

from pathlib import Path

from diptych.errors import UserError
from diptych.files import read_json
from diptych.report.report import report_runs


def write(folder: Path) -> Path:
    """STUDY -> STUDY/report/index.html, from the runs that study.json names and all beside them.

    Raises:
        UserError: no study, or one without a run.
    """
    path = folder / "study.json"
    if not path.is_file():
        raise UserError(f"{folder}: no study: study.json missing; run diptych reproduce first")
    named = read_json(path).get("runs") or {}
    runs = [folder / str(place) for place in named.values()]  # absolute places stay as they are
    begun = [run for run in runs if (run / "metrics.jsonl").is_file()]
    if not begun:
        raise UserError(f"{folder}: no run of the study has begun; go on with diptych reproduce")
    out = folder / "report"
    report_runs(begun, out, search=[folder], markdown_too=True, overwrite=out.exists())
    return out / "index.html"
