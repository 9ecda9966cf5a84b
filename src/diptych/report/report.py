"""Any runs of a user's own as a report: one HTML page, its numbers as JSON, Markdown and pictures.

Runs are read leniently: gaps, torn ends and repeated rows are reported, not refused. Every sentence
and every number is made from records, in English and in Chinese, and names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import write_json, write_text
from diptych.report import (
    chapters_align,
    chapters_cost,
    chapters_losses,
    chapters_pictures,
    chapters_scores,
    chapters_setup,
    chapters_short,
    chapters_study,
    chapters_sweep,
    markdown,
    report_page,
    static,
)
from diptych.report.blocks import Block, Plot, Section, Table
from diptych.report.catalogue import LANGUAGES, Text
from diptych.report.compare import plain
from diptych.report.folder import check_free, new_folder
from diptych.report.pairing import compared
from diptych.report.subjects import Study, open_study
from diptych.report.wording import Sentence, Source

SCHEMA_VERSION = 1


def report_runs(
    runs: Sequence[Path],
    out: Path,
    *,
    search: Sequence[Path] = (),
    markdown_too: bool = False,
    language: str = "en",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a report of run folders into `out`, which appears whole or not at all.

    Args:
        runs: run folders, one or more; a study's folder stands for its runs.
        search: more folders in which samples, scores, sweeps, ladders and profiles may lie;
            the run folders and what lies beside them are looked through anyway.
        markdown_too: also report.md, report.zh.md and their pictures.
        language: which one the page shows first, "en" or "zh".

    Returns:
        The content of report.json.

    Raises:
        UserError: what is no run, has nothing in common, or an `out` that is in use.
        MachineError: `out` cannot be written.
    """
    if language not in LANGUAGES:
        raise UserError(f"--language {language}: expected en or zh")
    check_free(out, overwrite, report_page.is_ours)
    study = open_study(runs, out, search)
    sections, tiles = chapters(study)
    order = chapters_short.number_sources(study, sections)
    found = list(chapters_short.records(study, sections, order))
    sections.append(Section("records", found))
    title = chapters_study.title(study)
    page = report_page.render(title, sections, tiles, order, study.colours, language)
    content = _content(study, title, sections)
    with new_folder(out) as build:
        write_text(build / "index.html", page)
        write_json(build / "report.json", content)
        if markdown_too:
            markdown.write(build, title, sections, order)
    return content


def chapters(study: Study) -> tuple[list[Section], list[chapters_short.Tile]]:
    """All chapters but the records, those without content left out; and the tiles at the top."""
    pairs = compared(study)
    made: dict[str, Iterable[Block]] = {
        "study": chapters_study.overview(study),
        "environment": chapters_setup.environment(study),
        "data": chapters_setup.data(study),
        "training": chapters_setup.training(study),
        "testing": chapters_setup.testing(study),
        "alignment": chapters_align.alignment(study, pairs),
        "losses": chapters_losses.losses(study, pairs),
        "performance": chapters_cost.performance(study, pairs),
        "sampling": chapters_cost.sampling(study),
        "scores": chapters_scores.scores(study),
        "sweep": chapters_sweep.sweeps(study),
        "pictures": (drawn := list(chapters_pictures.pictures(study, pairs)))
        + list(chapters_study.difference(study, drawn)),
        "method": chapters_short.method(pairs),
    }
    sections = [
        Section(key, [_drawn(study, block) for block in chapters_short.unique(list(blocks))])
        for key, blocks in made.items()
    ]
    sections.insert(0, Section("short", list(chapters_short.short(sections, pairs))))
    tiles = list(chapters_short.tiles(study, pairs))
    return [section for section in sections if section.blocks], tiles


def _drawn(study: Study, block: Block) -> Block:
    return replace(block, png=static.png_of(block, study.colours)) if isinstance(
        block, Plot
    ) else block  # fmt: skip


def _content(study: Study, title: Text, sections: Sequence[Section]) -> dict[str, Any]:
    """The content of report.json: everything that the page says, with its records."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "diptych report",
        "title": _both(title),
        "study": {"preset": study.plan.preset, "quick": study.plan.quick,
                  "stages": {s.name: s.state for s in study.plan.stages}} if study.plan else None,
        "runs": [
            {"label": label, "name": run.name, "backend": run.backend,
             "steps": int(run.step.size), "last_step": int(run.step[-1]), "torn": run.torn,
             "gaps": [list(gap) for gap in run.gaps], "repeated_rows": run.repeated}
            for label, run in zip(study.labels, study.runs, strict=True)
        ],
        "pairs": [
            {"a": study.labels[p.a], "b": study.labels[p.b], "matched": p.matched,
             "mismatches": [reason.en for reason in p.reasons]}
            for p in study.pairings
        ],
        "records_left_out": len(study.found.foreign),
        "records_damaged": [
            {"file": study.cite(path, "").path, "reason": reason}
            for path, reason in study.found.damaged.items()
        ],
        "sections": [
            {"key": section.key, "title": _both(section.title),
             "sentences": [_sentence(s) for s in section.sentences()],
             "tables": [_table(b) for b in section.blocks if isinstance(b, Table)],
             "figures": [b.name for b in section.blocks if isinstance(b, Plot)]}
            for section in sections
        ],
    }  # fmt: skip


def _both(text: Text) -> dict[str, str]:
    return {"en": text.en, "zh": text.zh}


def _sentence(s: Sentence) -> dict[str, Any]:
    return {"key": s.key, **_both(s.words), "numbers": plain(s.numbers),
            "records": _records(s.sources)}  # fmt: skip


def _table(table: Table) -> dict[str, Any]:
    return {
        "caption": _both(table.caption),
        "head": [cell.en for cell in table.head],
        "rows": [[cell.en for cell in row] for row in table.rows],
        "records": _records(table.sources),
    }


def _records(sources: Sequence[Source]) -> list[dict[str, str]]:
    return [{"file": source.path, "fields": source.fields} for source in sources]
