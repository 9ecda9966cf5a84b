"""The report of a whole study: a folder that `diptych reproduce` fills."""

from __future__ import annotations

from pathlib import Path

from diptych.report.plan import read_plan
from diptych.report.report import report_runs


def write(folder: Path) -> Path:
    """STUDY -> STUDY/report/index.html, from the runs that study.json names and all beside them.

    Raises:
        UserError: no study, or one without a run.
    """
    read_plan(folder)
    out = folder / "report"
    report_runs([folder], out, markdown_too=True, overwrite=out.exists())
    return out / "index.html"
