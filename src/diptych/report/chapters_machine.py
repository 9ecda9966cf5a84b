"""Memory and processor use: of the process, of the framework's own allocator, of the card.

    memory_mb             the process, every step (metrics.jsonl)
    counters.*            what the framework counts of itself: allocated, held, live arrays
    gpu.*                 what the card's driver tells
All but the first stand in resources.jsonl, a row a second, and are shown where they were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.profiling.resources import column
from diptych.report import plots, plots_cost, sentences_cost, statistics
from diptych.report.blocks import Block, grid_of
from diptych.report.catalogue import Text, phrase
from diptych.report.subjects import Study
from diptych.report.tables import MEMORY
from diptych.report.wording import Source, cite, say
from diptych.runs.watch.read import cost, rows_of

MEMORY_ROWS = ("first", "last", "peak", None, "slope")
# Row, key of resources.jsonl, percentile, unit.
HELD = (
    ("allocated", "counters.allocated_mb", 100, " MB"),
    ("reserved", "counters.reserved_mb", 100, " MB"),
    ("live", "counters.live_vars", 100, ""),
    ("gpu_memory", "gpu.memory_mb", 100, " MB"),
    ("gpu_total", "gpu.memory_total_mb", 100, " MB"),
    ("gpu_use", "gpu.util_percent", 50, " %"),
    ("gpu_power", "gpu.power_w", 50, " W"),
    ("gpu_heat", "gpu.temperature_c", 100, " °C"),
)
PROCESS = (
    ("process", "cpu_percent", 50, " %"),
    ("process_p95", "cpu_percent", 95, " %"),
    ("others", "others_percent", 50, " %"),
    ("rss", "rss_mb", 100, " MB"),
)
Rows = Sequence[list[dict[str, Any]]]
Kinds = Sequence[tuple[str, str, int, str]]


def memory(study: Study) -> Iterator[Block]:
    """The process's memory over its steps; what framework and card count, over the minutes."""
    numbers = [statistics.memory(run) for run in study.runs]
    for i, each in enumerate(numbers):
        said = sentences_cost.memory_of(study.labels[i], each)
        yield from cite(said, *study.metrics("step, memory_mb", i))
    figure = plots.memory(study)
    if figure:
        yield figure
    rows = [
        (phrase(f"row.{row}"), cells(numbers, key, show))
        for row, (_, key, show) in zip(MEMORY_ROWS, MEMORY, strict=True)
        if row
    ]
    if any(numbers):
        yield grid_of(phrase("caption.memory"), study.labels, rows, study.metrics("memory_mb"))
    watched, sources = _watched(study, "time, counters, gpu")
    held = plots_cost.held(study, watched, sources)
    if held:
        yield held
    counted = [(title, found) for title, found in _quantiles(watched, HELD) if any(found)]
    if counted:
        yield grid_of(phrase("caption.held"), study.labels, counted, sources)


def cells(
    numbers: Sequence[Mapping[str, Any] | None], key: str, show: Callable[[Any], str]
) -> list[str | None]:
    """One number of each run as text; None where it is not known."""
    return [None if n is None or n.get(key) is None else show(n[key]) for n in numbers]


def processor(study: Study) -> Iterator[Block]:
    """Processor use of each run and of its neighbours, where it was watched."""
    watched, sources = _watched(study, "time, cpu_percent, others_percent")
    if not sources:
        return
    figure = plots_cost.processor(study, watched, sources)
    if figure:
        yield figure
    rows = _quantiles(watched, PROCESS)
    rows.append((phrase("row.readings"), [f"{len(r):,}" if r else None for r in watched]))
    yield grid_of(phrase("caption.cpu"), study.labels, rows, sources)
    for i, folder in enumerate(study.folders):
        try:
            spent = cost(folder)
        except (UserError, TypeError):
            continue  # a row that was changed by hand: its cost is not known
        if spent:
            label = study.labels[i]
            said = say(f"cost.watching.{label}", "performance", "cost.watching", run=label,
                       total=spent["own_s"] + spent["probe_s"], own=spent["own_s"],
                       probe=spent["probe_s"], share=spent["share"],
                       n=int(spent["samples"]))  # fmt: skip
            yield from cite([said], study.source(i, "resources.jsonl", "time, own_s, probe_s"))


def _watched(study: Study, fields: str) -> tuple[Rows, tuple[Source, ...]]:
    watched = [rows_of(folder / "resources.jsonl") for folder in study.folders]
    sources = tuple(study.source(i, "resources.jsonl", fields)
                    for i, rows in enumerate(watched) if rows)  # fmt: skip
    return watched, sources


def _quantiles(watched: Rows, kinds: Kinds) -> list[tuple[Text, list[str | None]]]:
    """A row for each kind of number, a cell for each run."""
    found = []
    for row, key, percentile, unit in kinds:
        shown: list[str | None] = []
        for rows in watched:
            values = column(rows, key)
            finite = values[np.isfinite(values)]
            shown.append(f"{np.percentile(finite, percentile):,.0f}{unit}" if finite.size else None)
        found.append((phrase(f"row.{row}"), shown))
    return found
