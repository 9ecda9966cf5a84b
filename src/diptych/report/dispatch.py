"""Runs or logs: what was given decides which report or comparison is made, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.logs.readers import is_log
from diptych.report.build import compare_runs, report_runs
from diptych.report.of_logs import Columns, compare_logs, report_logs


def compare_any(
    a: Path,
    b: Path,
    out: Path | None,
    *,
    samples: tuple[Path, Path] | None = None,
    matched: bool = True,
    columns: Columns = (),
    labels: Sequence[str] = (),
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare two runs or two logs, as `compare_runs` and `compare_logs`.

    Raises:
        UserError: as both do; or an argument that is only for the other kind.
    """
    page: dict[str, Any] = {
        "language": language,
        "static": static,
        "overwrite": overwrite,
        "progress": progress,
    }
    if is_log(a) or is_log(b):
        if samples or not matched:
            raise UserError("--samples and --unmatched are for runs of Diptych, and not for logs")
        return compare_logs(a, b, out, columns=columns, names=labels, **page)
    _no_columns(columns, labels)
    if out is None:
        raise UserError("where to? Give the report's folder with --out")
    return compare_runs(a, b, out, samples=samples, matched=matched, **page)


def report_any(
    paths: Sequence[Path],
    out: Path,
    *,
    search: Sequence[Path] = (),
    logs: bool = False,
    columns: Columns = (),
    labels: Sequence[str] = (),
    markdown_too: bool = False,
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a report of runs or of logs, as `report_runs` and `report_logs`.

    Args:
        logs: run folders are logs too; files always are.

    Raises:
        UserError: as both do; or an argument that is only for the other kind.
    """
    page: dict[str, Any] = {
        "language": language,
        "static": static,
        "overwrite": overwrite,
        "progress": progress,
        "markdown_too": markdown_too,
    }
    if logs or any(map(is_log, paths)):
        if search:
            raise UserError("--search is for runs of Diptych; these are logs")
        return report_logs(paths, out, columns=columns, names=labels, **page)
    _no_columns(columns, labels, ": add --logs to read them as logs")
    return report_runs(paths, out, search=search, **page)


def _no_columns(columns: Columns, labels: Sequence[str], hint: str = "") -> None:
    if columns or labels:
        what = "--columns and --label are for logs of other programs; these are runs"
        raise UserError(what + hint)
