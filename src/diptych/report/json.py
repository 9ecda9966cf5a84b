"""A report as JSON: all statements of the page, with their records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from diptych.pages.catalogue import Text
from diptych.pages.document import Document, Plot, Section, Table
from diptych.pages.template import Sentence, Source
from diptych.report.chapters.summary import Row
from diptych.report.numbers.pair import PairNumbers, RunNumbers
from diptych.report.sources.collection import Study

SCHEMA_VERSION = 2


def content(study: Study, document: Document, verdict: Sequence[Row]) -> dict[str, Any]:
    """The content of report.json."""
    plan, found = study.plan, study.found
    stages = {s.name: s.state for s in plan.stages} if plan else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "diptych report",
        "title": _both(document.title),
        "study": {"preset": plan.preset, "quick": plan.quick, "stages": stages} if plan else None,
        "runs": [_run(each) for each in study.numbers],
        "pairs": [
            pair.names | {"matched": pair.matched, "mismatches": [r.en for r in pair.reasons]}
            for pair in study.pairs
        ],
        "verdict": [row(each) for each in verdict],
        "records_left_out": len(found.foreign),
        "records_damaged": [
            {"file": study.cite(p, "").path, "reason": why} for p, why in found.damaged.items()
        ],
        "sections": [_section(section) for section in document.sections],
    }


def comparison(
    pair: PairNumbers, said: Iterable[Sentence], verdict: Sequence[Row]
) -> dict[str, Any]:
    """The content of compare.json but for its figures; sentences are in English."""
    found: dict[str, Any] = plain(pair.content())
    found["sentences"] = [
        {"key": s.key, "section": s.section, "text": s.words.en, "numbers": plain(s.numbers)}
        for s in said
    ]
    found["verdict"] = [row(each) for each in verdict]
    return found


def _run(each: RunNumbers) -> dict[str, Any]:
    run, about = each.run, {"label": each.label, "name": each.run.name}
    found = {"steps": int(run.step.size), "last_step": int(run.step[-1]), "torn": run.torn}
    holes = {"gaps": [list(gap) for gap in run.gaps], "repeated_rows": run.repeated}
    return about | {"backend": run.backend} | found | holes


def row(of: Row) -> dict[str, Any]:
    """A row of the verdict."""
    told = {"difference": _both(of.gap), "verdict": _both(of.verdict)}
    values = {"what": _both(of.what), "a": of.a.en, "b": of.b.en}
    return values | told | {"records": _records(of.sources)}


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": _both(section.title),
        "sentences": [_sentence(s) for s in section.sentences()],
        "tables": [_table(b) for b in section.blocks if isinstance(b, Table)],
        "figures": [b.name for b in section.blocks if isinstance(b, Plot)],
    }


def plain(value: Any) -> Any:
    """Convert to JSON values: None for NaN and infinity, tuples as lists, texts in English."""
    if isinstance(value, Text):
        return value.en
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _both(text: Text) -> dict[str, str]:
    return {"en": text.en, "zh": text.zh}


def _sentence(s: Sentence) -> dict[str, Any]:
    found = {"key": s.key, **_both(s.words), "numbers": plain(s.numbers)}
    return {**found, "records": _records(s.sources)}


def _table(table: Table) -> dict[str, Any]:
    return {
        "caption": _both(table.caption),
        "head": [cell.en for cell in table.head],
        "rows": [[cell.en for cell in row] for row in table.rows],
        "records": _records(table.sources),
    }


def _records(sources: Sequence[Source]) -> list[dict[str, str]]:
    return [{"file": source.path, "fields": source.fields} for source in sources]
