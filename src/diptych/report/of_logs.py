"""Reports and comparisons of anybody's logs: the reporter's document, made of what a log holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych.errors import UserError
from diptych.logs.log import labels, read_log
from diptych.pages.document import Block, Document
from diptych.report import json
from diptych.report.build import assemble, check_output, write_comparison, write_report
from diptych.report.chapters import logs as chapters
from diptych.report.chapters import summary
from diptych.report.sources.collection import MOST_RUNS, colours_of
from diptych.report.sources.gather import Gathered
from diptych.report.sources.logs import LogStudy, numbers_of

Columns = Sequence[Mapping[str, str]]


def open_logs(
    paths: Sequence[Path],
    out: Path,
    columns: Columns = (),
    names: Sequence[str] = (),
    progress: bool = False,
) -> LogStudy:
    """Read logs, and pair the first with each of the others.

    Args:
        columns: role -> column: none (guessed), one for all logs, or one for each.
        names: labels; none: from the paths.
        progress: show a bar on stderr.

    Raises:
        UserError: as `read_log`; or too many logs, columns or labels.
    """
    if not paths:
        raise UserError("which logs? Give one file or more")
    if len(paths) > MOST_RUNS:
        raise UserError(f"{len(paths)} logs; a report holds {MOST_RUNS} at most: choose some")
    if len(columns) not in (0, 1, len(paths)):
        raise UserError(
            f"--columns is given {len(columns)} times for {len(paths)} logs; give it once for all, "
            "or once for each in their order"
        )
    given = list(columns) or [{}]
    chosen = given * len(paths) if len(given) == 1 else given
    known = labels(list(paths), tuple(names))
    bar = tqdm(paths, "logs", unit="log", disable=not progress, delay=2)
    logs = [read_log(path, own, name) for path, own, name in zip(bar, chosen, known, strict=True)]
    numbers, pairs = numbers_of(logs, known)
    colours = colours_of([_framework(name) for name in known])
    return LogStudy(out, tuple(paths), numbers, pairs, Gathered(), colours)


def _framework(label: str) -> str:
    """The framework that a label names, whose colour the log gets; "" if it names none."""
    for name, words_of in (("jittor", "jittor|jt"), ("torch", "pytorch|torch|pt")):
        if re.search(rf"(?<![a-z])({words_of})(?![a-z])", label, re.IGNORECASE):
            return name
    return ""


def compose(
    study: LogStudy, dark: bool = False, progress: bool = False
) -> tuple[Document, list[summary.Row]]:
    """The chapters of a page about logs, and the rows of the verdict."""
    made: dict[str, Iterable[Block]] = {
        "alignment": chapters.alignment(study),
        "losses": chapters.curves(study),
        "performance": chapters.performance(study),
        "pictures": [chapters.absent("pictures")],
        "environment": chapters.environment(study),
        "data": [chapters.absent("data")],
        "training": chapters.training(study),
        "testing": [chapters.absent("testing")],
        "method": chapters.method(study),
    }
    rows = chapters.verdict(study)
    return assemble(study, chapters.title(study), made, rows, dark, progress), rows


def report_logs(
    paths: Sequence[Path],
    out: Path,
    *,
    columns: Columns = (),
    names: Sequence[str] = (),
    markdown_too: bool = False,
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a report of log files into `out`, whole or not at all.

    Args:
        paths: log files, folders of event files, run folders.
        columns, names: as in `open_logs`.
        markdown_too, language, static, progress: as in `build.report_runs`.

    Returns:
        The content of report.json.

    Raises:
        UserError: a log cannot be read, or `out` is in use. MachineError: `out` cannot be written.
    """
    check_output(language, out, overwrite)
    study = open_logs(paths, out, columns, names, progress)
    document, rows = compose(study, static, progress)
    found = json.content(study, document, rows)
    found["logs"] = [json.plain(each.identity()) for each in study.numbers]
    write_report(out, found, document, language, static, markdown_too)
    return found


def compare_logs(
    a: Path,
    b: Path,
    out: Path | None = None,
    *,
    columns: Columns = (),
    names: Sequence[str] = (),
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare two logs; with `out`, also write compare.json, the figures and index.html.

    Returns:
        The content of compare.json.

    Raises:
        UserError: a log cannot be read, or `out` is in use. MachineError: `out` cannot be written.
    """
    if out is not None:
        check_output(language, out, overwrite)
    study = open_logs((a, b), out or Path(), columns, names, progress)
    (pair,) = study.pairs
    result = json.comparison(pair, chapters.pair_sentences(pair), chapters.verdict(study))
    if out is not None:
        document, _ = compose(study, static, progress)
        write_comparison(out, result, study, document, language, static)
    return result
