"""Chapter: memory. Of the process, of the framework's own allocator, of the card.

    memory_mb             the process, every step (metrics.jsonl)
    counters.*            what the framework counts of itself: allocated, held, live arrays
    gpu.*                 what the card's driver tells
All but the first stand in resources.jsonl, a row a second, and are shown where they were recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

from diptych.figures.numbers import significant
from diptych.pages.catalogue import phrase
from diptych.pages.document import Block, grid_of, plot
from diptych.pages.template import Sentence, about, cite, pick, say
from diptych.pages.traces import thinned
from diptych.report.chapters.losses import run_lines
from diptych.report.chapters.machine import over_minutes, quantiles, watched
from diptych.report.chapters.setup import cells
from diptych.report.numbers.costs import LEAST_FOR_SLOPE
from diptych.report.numbers.losses import Numbers
from diptych.report.sources.collection import Study

MEMORY = (
    ("first", "first", lambda x: f"{x:,.1f} MiB"),
    ("last", "last", lambda x: f"{x:,.1f} MiB"),
    ("peak", "peak", lambda x: f"{x:,.1f} MiB"),
    ("slope", "slope_per_1000_steps", lambda x: f"{significant(x, 3)} MiB"),
)
# Row, key of resources.jsonl, percentile, unit.
HELD = (("allocated", "counters.allocated_mb", 100, " MiB"),
        ("reserved", "counters.reserved_mb", 100, " MiB"),
        ("live", "counters.live_vars", 100, ""), ("gpu_memory", "gpu.memory_mb", 100, " MiB"),
        ("gpu_total", "gpu.memory_total_mb", 100, " MiB"),
        ("gpu_use", "gpu.util_percent", 50, " %"), ("gpu_power", "gpu.power_w", 50, " W"),
        ("gpu_heat", "gpu.temperature_c", 100, " °C"))  # fmt: skip
# A fitted change of less than this share of the peak, over the whole run, is called flat.
FLAT = 0.01


def chapter(study: Study) -> Iterator[Block]:
    """The process's memory over its steps; what framework and card count, over the minutes."""
    numbers = [each.memory for each in study.numbers]
    for i, each in enumerate(numbers):
        said = memory_sentences(study.labels[i], each)
        yield from cite(said, *study.metrics("step, memory_mb", i))
    traces = run_lines(study, lambda run: run.memory_mb)
    if traces:
        sources, note = study.metrics("step, memory_mb"), thinned([r.step.size for r in study.runs])
        yield plot("memory", "step", "megabytes", traces, note, sources)
    rows = [(row, cells(numbers, key, show)) for row, key, show in MEMORY]
    if any(numbers):
        yield grid_of("memory", study.labels, rows, study.metrics("memory_mb"))
    rows_of_runs, sources = watched(study, "time, counters, gpu")
    kinds = (
        ("reserved", "counters.reserved_mb", "solid"),
        ("allocated", "counters.allocated_mb", "dash"),
        ("gpu", "gpu.memory_mb", "dot"),
    )
    held = over_minutes(study, rows_of_runs, kinds)
    if held:
        yield plot("memory-held", "minutes", "megabytes", held, "resources", sources)
    counted = [(title, found) for title, found in quantiles(rows_of_runs, HELD) if any(found)]
    if counted:
        yield grid_of("held", study.labels, counted, sources)


def memory_sentences(label: str, run: Numbers | None) -> Iterator[Sentence]:
    """One run's peak, and whether its memory rose."""
    if run is None:
        yield about(label, "memory.none")
        return
    yield about(label, "memory.peak", **pick(run, "first last peak", step="peak_step"))
    yield _slope(label, run)


def _slope(label: str, run: Numbers) -> Sentence:
    slope, key = run["slope_per_1000_steps"], f"memory.slope.{label}"
    if slope is None:
        return say(key, "memory.no_slope", run=label, least=LEAST_FOR_SLOPE)
    n = run["slope_steps"]
    change = slope * n / 1000.0
    if abs(change) <= FLAT * run["peak"]:
        share = abs(change) / (run["peak"] or 1.0)
        return say(key, "memory.flat", run=label, n=n, slope=slope, share=share)
    moves = phrase("term.rises" if slope > 0 else "term.falls")
    return say(key, "memory.slope", run=label, n=n, moves=moves, slope=abs(slope))
