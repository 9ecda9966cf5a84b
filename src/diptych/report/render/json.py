"""A report as JSON: everything that the page says, with its records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diptych.report.chapters.summary import Row
from diptych.report.document import Document, Plot, Table
from diptych.report.sources.collection import Study
from diptych.report.text.catalogue import Text
from diptych.report.text.template import Sentence, Source

SCHEMA_VERSION = 2


def content(study: Study, document: Document, verdict: Sequence[Row]) -> dict[str, Any]:
    """The content of report.json."""
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "diptych report",
        "title": _both(document.title),
        "study": {
            "preset": study.plan.preset,
            "quick": study.plan.quick,
            "stages": {s.name: s.state for s in study.plan.stages},
        }
        if study.plan
        else None,
        "runs": [
            {
                "label": each.label,
                "name": each.run.name,
                "backend": each.run.backend,
                "steps": int(each.run.step.size),
                "last_step": int(each.run.step[-1]),
                "torn": each.run.torn,
                "gaps": [list(gap) for gap in each.run.gaps],
                "repeated_rows": each.run.repeated,
            }
            for each in study.numbers
        ],
        "pairs": [
            {
                "a": p.a.label,
                "b": p.b.label,
                "matched": p.matched,
                "mismatches": [reason.en for reason in p.reasons],
            }
            for p in study.pairs
        ],
        "verdict": [
            {
                "what": _both(row.what),
                "a": row.a.en,
                "b": row.b.en,
                "difference": _both(row.gap),
                "verdict": _both(row.verdict),
                "records": _records(row.sources),
            }
            for row in verdict
        ],
        "records_left_out": len(study.found.foreign),
        "records_damaged": [
            {"file": study.cite(path, "").path, "reason": reason}
            for path, reason in study.found.damaged.items()
        ],
        "sections": [
            {
                "key": section.key,
                "title": _both(section.title),
                "sentences": [_sentence(s) for s in section.sentences()],
                "tables": [_table(b) for b in section.blocks if isinstance(b, Table)],
                "figures": [b.name for b in section.blocks if isinstance(b, Plot)],
            }
            for section in document.sections
        ],
    }


def plain(value: Any) -> Any:
    """What JSON can hold: no NaN, no infinity, tuples as lists, texts in English."""
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
