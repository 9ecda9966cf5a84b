"""Reports and comparisons of anybody's logs: the reporter's document, made of what a log holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diptych import __version__
from diptych.errors import UserError
from diptych.files import check_free, new_folder, write_json, write_text
from diptych.logs.log import Log, labels, read_log
from diptych.report.build import COMPARED, FOLDED, is_ours, unique
from diptych.report.chapters import logs as chapters
from diptych.report.chapters import summary
from diptych.report.chapters.logs import LogStudy, absent
from diptych.report.document import Block, Document, Section, numbered
from diptych.report.numbers.logs import LogPair
from diptych.report.render import html, json, markdown, png
from diptych.report.sources.collection import MOST_RUNS, colours_of
from diptych.report.sources.gather import Gathered
from diptych.report.text.catalogue import LANGUAGES
from diptych.report.text.template import words

Columns = Sequence[Mapping[str, str]]


def open_logs(
    paths: Sequence[Path], out: Path, columns: Columns = (), names: Sequence[str] = ()
) -> LogStudy:
    """Read logs, and pair the first with each of the others.

    Args:
        columns: role -> column: none (guessed), one for all logs, or one for each.
        names: labels; none: from the paths.

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
    logs: list[Log] = [
        read_log(path, own, name) for path, own, name in zip(paths, chosen, known, strict=True)
    ]
    numbers, pairs = chapters.numbers_of(logs, known)
    colours = colours_of([_framework(name) for name in known])
    return LogStudy(out, tuple(paths), numbers, pairs, Gathered(), colours)


def _framework(label: str) -> str:
    """The framework that a label names, whose colour the log gets; "" if it names none."""
    for name, words_of in (("jittor", "jittor|jt"), ("torch", "pytorch|torch|pt")):
        if re.search(rf"(?<![a-z])({words_of})(?![a-z])", label, re.IGNORECASE):
            return name
    return ""


def compose(study: LogStudy, dark: bool = False) -> tuple[Document, list[summary.Row]]:
    """The chapters of a page about logs, and the rows of the verdict."""
    made: dict[str, Iterable[Block]] = {
        "alignment": chapters.alignment(study),
        "losses": chapters.curves(study),
        "performance": chapters.performance(study),
        "pictures": [absent("pictures")],
        "environment": chapters.environment(study),
        "data": [absent("data")],
        "training": chapters.training(study),
        "testing": [absent("testing")],
        "method": chapters.method(study),
    }
    sections = [
        Section(key, list(unique(blocks)), long=key in FOLDED) for key, blocks in made.items()
    ]
    rows = chapters.verdict(study)
    sections.insert(0, Section("short", list(summary.chapter(study, rows, sections))))
    order = numbered(sections)
    sections.append(Section("records", list(summary.records(study, sections, order)), long=True))
    for section in sections:
        section.blocks = [png.drawn(block, study.colours, dark) for block in section.blocks]
    made_by = words("ui.made", version=__version__)
    return Document(chapters.title(study), sections, study.colours, made_by, order), rows


def report_logs(
    paths: Sequence[Path], out: Path, *, columns: Columns = (), names: Sequence[str] = (),
    markdown_too: bool = False, language: str = "en", static: bool = False, overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write a report of log files into `out`, whole or not at all.

    Args:
        paths: log files, folders of event files, run folders.
        columns, names: as in `open_logs`.
        markdown_too, language, static: as in `build.report_runs`.

    Returns:
        The content of report.json.

    Raises:
        UserError: a log cannot be read, or `out` is in use. MachineError: `out` cannot be written.
    """
    _check(language, out, overwrite)
    study = open_logs(paths, out, columns, names)
    document, rows = compose(study, dark=static)
    page = html.render(document, language, static=static)
    found = json.content(study, document, rows)
    found["logs"] = [json.plain(each.identity()) for each in study.numbers]
    with new_folder(out) as build:
        write_text(build / "index.html", page)
        write_json(build / "report.json", found)
        if markdown_too:
            markdown.write(build, document)
    return found


def compare_logs(
    a: Path, b: Path, out: Path | None = None, *, columns: Columns = (), names: Sequence[str] = (),
    language: str = "en", static: bool = False, overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Compare two logs; with `out`, also write compare.json, the figures and index.html.

    Returns:
        The content of compare.json.

    Raises:
        UserError: a log cannot be read, or `out` is in use. MachineError: `out` cannot be written.
    """
    if out is not None:
        _check(language, out, overwrite)
    study = open_logs((a, b), out or Path(), columns, names)
    (pair,) = study.pairs
    assert isinstance(pair, LogPair)
    result: dict[str, Any] = json.plain(pair.content())
    said = list(chapters.pair_sentences(study, pair))
    result["sentences"] = [
        {"key": s.key, "section": s.section, "text": s.words.within(language),
         "numbers": json.plain(s.numbers)}
        for s in said
    ]  # fmt: skip
    rows = chapters.verdict(study)
    result["verdict"] = [json.row(each) for each in rows]
    if out is None:
        return result
    document, _ = compose(study, dark=static)
    plots = {plot.name: plot for plot in document.plots()}
    drawn = [name for name in COMPARED if name in plots]
    result["figures"] = [f"{name}.png" for name in drawn]
    with new_folder(out) as build:
        for name in drawn:
            (build / f"{name}.png").write_bytes(plots[name].png)
        write_json(build / "compare.json", result)
        write_text(build / "index.html", html.render(document, language, static=static))
    return result


def _check(language: str, out: Path, overwrite: bool) -> None:
    if language not in LANGUAGES:
        raise UserError(f"--language {language}: expected en or zh")
    check_free(out, overwrite, is_ours)
