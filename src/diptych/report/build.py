"""Reports of any runs, comparisons of two: one document, written as page, JSON and Markdown.

A report reads its runs leniently: gaps, torn ends and repeated rows are reported, not refused. A
comparison refuses them, and refuses runs that do not match. Every sentence and every number is
computed from records and cites them, in English and in Chinese.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from diptych import __version__
from diptych.errors import UserError
from diptych.files import check_free, new_folder, write_json, write_text
from diptych.pages import html, markdown, png
from diptych.pages.catalogue import LANGUAGES, Text
from diptych.pages.document import Block, Document, Gallery, Section, numbered
from diptych.pages.template import Sentence, words
from diptych.report import json
from diptych.report.chapters import (
    agreement,
    losses,
    machine,
    memory,
    method,
    pictures,
    sampling,
    scores,
    setup,
    step_phases,
    summary,
    sweep,
    times,
)
from diptych.report.chapters import study as of_study
from diptych.report.numbers.images import compare_samples
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.collection import Study, open_pair, open_study
from diptych.report.sources.gather import Gathered, Record
from diptych.report.sources.study import read_plan
from diptych.runs.samples import read_samples

# Names of figures and pictures: the chapters' own, and those numbered or named by run.
DRAWN = (
    r"loss|loss-every-200|difference|step-time|step-time-distribution|epoch-time|memory|memory-held"
    r"|split|processor|sampling-time|grids|(score|sweep|grid|progress|sampling|training)-.+"
)
# The files of a comparison beside its page, in the order of compare.json.
COMPARED = ("loss", "loss-every-200", "difference", "step-time", "epoch-time", "memory")
FOLDED = ("environment", "data", "training", "testing", "method", "records")


def report_runs(
    runs: Sequence[Path],
    out: Path,
    *,
    search: Sequence[Path] = (),
    markdown_too: bool = False,
    language: str = "en",
    static: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Write a report of run folders into `out`, written whole or not at all.

    Args:
        runs: run folders, one or more; a study's folder means its runs.
        search: more folders to search for samples, scores, sweeps, ladders and profiles;
            the run folders and everything beside them are always searched.
        markdown_too: also write report.md, report.zh.md and their pictures.
        language: language shown first, "en" or "zh".
        static: write a page without scripts, in that language only.
        progress: show bars on stderr.

    Returns:
        The content of report.json.

    Raises:
        UserError: a folder is not a run, the runs have nothing in common, or `out` is in use.
        MachineError: `out` cannot be written.
    """
    check_output(language, out, overwrite)
    study = open_study(runs, out, search, progress)
    document, rows = compose(study, static, progress)
    found = json.content(study, document, rows)
    write_report(out, found, document, language, static, markdown_too)
    return found


def write_report(
    out: Path,
    found: dict[str, Any],
    document: Document,
    language: str,
    static: bool,
    markdown_too: bool,
) -> None:
    """Write report.json, index.html and perhaps Markdown, whole or not at all."""
    page = html.render(document, language, static=static)
    with new_folder(out) as build:
        write_text(build / "index.html", page)
        write_json(build / "report.json", found)
        if markdown_too:
            markdown.write(build, document)


def report_study(folder: Path) -> Path:
    """Write STUDY/report/index.html from the runs in study.json and all records beside them."""
    read_plan(folder)
    out = folder / "report"
    report_runs([folder], out, markdown_too=True, overwrite=out.exists())
    return out / "index.html"


def compare_runs(
    run_a: Path,
    run_b: Path,
    out: Path,
    *,
    samples: tuple[Path, Path] | None = None,
    overwrite: bool = False,
    matched: bool = True,
    language: str = "en",
    static: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Compare two runs and write compare.json, the figures and index.html into `out`.

    Args:
        run_a, run_b: run folders; a ratio is B's number over A's.
        out: written whole or not at all.
        samples: sample folders of A and of B.
        overwrite: replace an earlier comparison in `out`.
        matched: compare step by step; refuse runs for which that is meaningless.
        language, static, progress: as in `report_runs`.

    Returns:
        The content of compare.json.

    Raises:
        UserError: not a run or sample folder, runs that do not match, or `out` in use.
        MachineError: `out` cannot be written.
    """
    check_output(language, out, overwrite)
    found = Gathered()
    study = open_pair((run_a, run_b), out, found, matched, progress)
    (pair,) = study.pairs
    if samples:
        one, other = (read_samples(f, each.run) for f, each in zip(samples, pair.both, strict=True))
        for run, each in enumerate((one, other)):
            path = each.folder / "manifest.json"
            found.records.append(Record("samples", path, each.card, run, "given"))
        pair = replace(pair, samples=compare_samples(one, other, matched))
        study = replace(study, pairs=(pair,))
    document, rows = compose(study, static, progress)
    result = json.comparison(pair, pair_sentences(pair), rows)
    write_comparison(out, result, study, document, language, static)
    return result


def write_comparison(
    out: Path,
    result: dict[str, Any],
    study: Study,
    document: Document,
    language: str,
    static: bool,
) -> None:
    """Write compare.json, its figures (which `result` gets) and index.html, whole or not at all."""
    files = dict(_pictures(document, study))
    result["figures"] = list(files)
    with new_folder(out) as build:
        for name, drawn in files.items():
            (build / name).write_bytes(drawn)
        write_json(build / "compare.json", result)
        write_text(build / "index.html", html.render(document, language, static=static))


def check_output(language: str, out: Path, overwrite: bool) -> None:
    """Raise UserError if the language is unknown or `out` is in use by anything but a report."""
    if language not in LANGUAGES:
        raise UserError(f"--language {language}: expected en or zh")
    check_free(out, overwrite, is_ours)


def is_ours(name: str) -> bool:
    """Return True if a report or a comparison writes a file of this name."""
    stem, ending = os.path.splitext(name)
    drawn = ending in (".png", ".gif") and re.fullmatch(DRAWN, stem)
    ours = ("index.html", "report.json", "compare.json", *markdown.FILES.values())
    return bool(drawn) or name in ours


def compose(
    study: Study, dark: bool = False, progress: bool = False
) -> tuple[Document, list[summary.Row]]:
    """All chapters that have content, and the rows of the verdict.

    Args:
        dark: also draw each figure on dark paper.
        progress: show bars on stderr.
    """
    made: dict[str, Iterable[Block]] = {
        "study": of_study.chapter(study),
        "alignment": agreement.chapter(study),
        "losses": losses.chapter(study),
        "performance": _performance(study),
        "sampling": sampling.chapter(study),
        "scores": scores.chapter(study),
        "sweep": sweep.chapter(study),
        "pictures": _sampled(study),
        "environment": setup.environment(study),
        "data": setup.data(study),
        "training": setup.training(study),
        "testing": setup.testing(study),
        "method": method.chapter(study),
    }
    rows = summary.verdict(study)
    return assemble(study, of_study.title(study), made, rows, dark, progress), rows


def assemble(
    study: Study,
    title: Text,
    made: Mapping[str, Iterable[Block]],
    rows: list[summary.Row],
    dark: bool,
    progress: bool,
) -> Document:
    """A document of all chapters that have content, the summary before and the records behind.

    Args:
        made: key -> blocks of each chapter, in order.
        rows: the verdict.
        dark: also draw each figure on dark paper.
        progress: show bars on stderr.
    """
    chapters = tqdm(made.items(), "chapters", unit="chapter", disable=not progress, delay=2)
    sections = [Section(key, list(unique(blocks)), long=key in FOLDED) for key, blocks in chapters]
    sections.insert(0, Section("short", list(summary.chapter(study, rows, sections))))
    order = numbered(sections)
    sections.append(Section("records", list(summary.records(study, sections, order)), long=True))
    for section in tqdm(sections, "figures", unit="chapter", disable=not progress, delay=2):
        section.blocks = [png.drawn(block, study.colours, dark) for block in section.blocks]
    filled = [section for section in sections if section.blocks]
    made_by = words("ui.made", version=__version__)
    return Document(title, filled, study.colours, made_by, order)


def _performance(study: Study) -> Iterator[Block]:
    """Steps, their phases, slow steps and their causes, epochs, memory, processor use."""
    yield from times.step_times(study)
    yield from step_phases.chapter(study)
    yield from times.slow(study)
    yield from times.epochs(study)
    yield from memory.chapter(study)
    yield from machine.chapter(study)


def _sampled(study: Study) -> Iterator[Block]:
    """Sampled images, and in a study the differences between them."""
    drawn = list(pictures.chapter(study))
    yield from drawn
    yield from of_study.difference(study, drawn)


def unique(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks without the sentences that repeat an earlier one in the chapter."""
    seen = set()
    for block in blocks:
        words_of = block.words if isinstance(block, Sentence) else None
        if words_of is None or words_of not in seen:
            yield block
        seen.add(words_of)


def pair_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """All sentences about two runs, as compare.json lists them."""
    a, b = pair.both
    yield from agreement.match_sentences(pair)
    for each in pair.both:
        yield from losses.torn(each.label, each.run)
    if pair.difference:
        yield from agreement.difference_sentences(pair.difference, a.label, b.label)
    yield from losses.loss_sentences(pair)
    yield from times.ratio_of_times(pair)
    for each in pair.both:
        yield from times.slow_sentences(each)
    yield from times.epoch_sentences(pair)
    for each in pair.both:
        yield from memory.memory_sentences(each.label, each.memory)
    if pair.samples:
        yield from pictures.image_sentences(pair.samples, a.label, b.label)
    yield from method.method_sentences(pair.matched)


def _pictures(document: Document, study: Study) -> Iterator[tuple[str, bytes]]:
    """The pictures of a comparison as files: figures, and the grids side by side."""
    plots = {plot.name: plot for plot in document.plots()}
    for name in COMPARED:
        if name in plots:
            yield f"{name}.png", plots[name].png
    for section in document.sections:
        for block in section.blocks:
            if isinstance(block, Gallery) and block.pictures[0].name.startswith("grid-"):
                yield "grids.png", png.side_by_side(block, study.colours)
