"""Chapter: the machine. Processor use of each run and its neighbours, and the cost of watching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.pages.document import Block, GridRow, Looks, Trace, grid_of, plot
from diptych.pages.template import Source, about, pick, words
from diptych.pages.traces import line
from diptych.profiling.resources import column
from diptych.report.sources.collection import Study
from diptych.runs.watch.read import cost, rows_of

READINGS = 240
PROCESS = (("process", "cpu_percent", 50, " %"), ("process_p95", "cpu_percent", 95, " %"),
           ("others", "others_percent", 50, " %"), ("rss", "rss_mb", 100, " MiB"))  # fmt: skip
Rows = Sequence[list[dict[str, Any]]]
Kinds = Sequence[tuple[str, str, int, str]]


def chapter(study: Study) -> Iterator[Block]:
    """Processor use of each process and of all others, if it was recorded."""
    rows_of_runs, sources = watched(study, "time, cpu_percent, others_percent")
    if not sources:
        return
    kinds = (("process", "cpu_percent", "solid"), ("others", "others_percent", "dot"))
    traces = over_minutes(study, rows_of_runs, kinds)
    if traces:
        yield plot("processor", "minutes", "percent", traces, "resources", sources)
    rows = quantiles(rows_of_runs, PROCESS)
    rows.append(("readings", [f"{len(r):,}" if r else None for r in rows_of_runs]))
    yield grid_of("cpu", study.labels, rows, sources)
    for i, (label, folder) in enumerate(zip(study.labels, study.folders, strict=True)):
        try:
            spent = cost(folder)
        except (UserError, TypeError, ArithmeticError):
            continue  # a row edited by hand: its cost is unknown
        if spent:
            numbers = pick(spent, "share", own="own_s", probe="probe_s")
            numbers |= {"total": spent["own_s"] + spent["probe_s"], "n": int(spent["samples"])}
            yield about(label, "cost.watching", **numbers).by(
                study.source(i, "resources.jsonl", "time, own_s, probe_s")
            )


def watched(study: Study, fields: str) -> tuple[Rows, tuple[Source, ...]]:
    watched = [rows_of(folder / "resources.jsonl") for folder in study.folders]
    sources = tuple(
        study.source(i, "resources.jsonl", fields) for i, rows in enumerate(watched) if rows
    )
    return watched, sources


def quantiles(watched: Rows, kinds: Kinds) -> list[GridRow]:
    """One row per kind of number, one cell per run."""
    found: list[GridRow] = []
    for row, key, percentile, unit in kinds:
        shown: list[str | None] = []
        for rows in watched:
            values = column(rows, key)
            finite = values[np.isfinite(values)]
            shown.append(f"{np.percentile(finite, percentile):,.0f}{unit}" if finite.size else None)
        found.append((row, shown))
    return found


def over_minutes(study: Study, watched: Rows, kinds: Sequence[tuple[str, str, str]]) -> list[Trace]:
    """One line for each run and kind (name, key, dash) with two or more readings."""
    traces = []
    for i, rows in enumerate(watched):
        time = column(rows, "time")
        for name, key, dash in kinds:
            used = column(rows, key)
            finite = np.isfinite(time) & np.isfinite(used)
            if finite.sum() < 2:
                continue
            minutes = (time[finite] - time[finite][0]) / 60.0
            label = words(f"label.{name}", run=study.labels[i])
            looks: Looks = {"most": 2 * READINGS, "dash": dash}
            traces.append(line(label, f"run{i}", minutes, used[finite], **looks))
    return traces
