"""The figures of what runs cost: parts of a step, processor use, sampled batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diptych.profiling.resources import column
from diptych.report.blocks import Plot, Trace
from diptych.report.catalogue import known, phrase, same
from diptych.report.gather import Record
from diptych.report.subjects import Study
from diptych.report.traces import line
from diptych.report.wording import Source, words

PARTS = ("data", "to_device", "forward", "backward", "optimizer", "ema")
READINGS = 240


def phases(study: Study, records: Sequence[Record]) -> Plot | None:
    """The medians of the parts of a step as stacked bars, milliseconds."""
    labels = [study.label_of(record) for record in records]
    traces = []
    for k, part in enumerate(PARTS):
        values = [_median(record, part) for record in records]
        if any(value is not None for value in values):
            y = [None if value is None else float(f"{1000 * value:.4g}") for value in values]
            traces.append(Trace("bars", known("phase", part), f"part{k}", labels, y))
    if not traces:
        return None
    sources = tuple(study.of_record(record, "phases.median_s") for record in records)
    return _stack(traces, "note.phases", sources)


def _median(record: Record, part: str) -> float | None:
    for phase in record.content["phases"]:
        if phase["name"] == part and phase.get("median_s") is not None:
            return float(phase["median_s"])
    return None


def _stack(traces: Sequence[Trace], note: str, sources: tuple[Source, ...]) -> Plot:
    return Plot(
        "split",
        phrase("figure.split"),
        phrase("alt.split"),
        same(""),
        phrase("axis.milliseconds"),
        traces,
        phrase(note),
        from_zero=True,
        stacked=True,
        sources=sources,
    )


def split(study: Study) -> Plot | None:
    """The mean wait for data and the mean computation of a synchronised step, milliseconds."""
    timed = [(label, run) for label, run in zip(study.labels, study.runs, strict=True)
             if run.synced.any()]  # fmt: skip
    if not timed:
        return None
    labels = [label for label, _ in timed]
    traces = []
    for k, key in ((0, "data_s"), (2, "compute_s")):
        means = [1000 * float(np.mean(getattr(run, key)[run.synced])) for _, run in timed]
        y = [float(f"{value:.4g}") for value in means]
        traces.append(Trace("bars", phrase(f"split.{key}"), f"part{k}", labels, y))
    return _stack(traces, "note.split", study.metrics("data_s, compute_s, synced"))


def processor(
    study: Study, watched: Sequence[list[dict[str, Any]]], sources: tuple[Source, ...]
) -> Plot | None:
    """Processor use of each process, and of all others together, over the minutes."""
    kinds = (("process", "cpu_percent", "solid"), ("others", "others_percent", "dot"))
    traces = _over_minutes(study, watched, kinds)
    if not traces:
        return None
    return Plot(
        "processor",
        phrase("figure.cpu"),
        phrase("alt.cpu"),
        phrase("axis.minutes"),
        phrase("axis.percent"),
        traces,
        phrase("note.resources"),
        from_zero=True,
        sources=sources,
    )


def held(
    study: Study, watched: Sequence[list[dict[str, Any]]], sources: tuple[Source, ...]
) -> Plot | None:
    """Memory as the framework's allocator and the card count it, over the minutes."""
    kinds = (
        ("reserved", "counters.reserved_mb", "solid"),
        ("allocated", "counters.allocated_mb", "dash"),
        ("gpu", "gpu.memory_mb", "dot"),
    )
    traces = _over_minutes(study, watched, kinds)
    if not traces:
        return None
    return Plot(
        "memory-held",
        phrase("figure.held"),
        phrase("alt.held"),
        phrase("axis.minutes"),
        same("MB"),
        traces,
        phrase("note.resources"),
        from_zero=True,
        sources=sources,
    )


def _over_minutes(
    study: Study, watched: Sequence[list[dict[str, Any]]], kinds: Sequence[tuple[str, str, str]]
) -> list[Trace]:
    """A line for each run and kind (name, key, dash) of which two readings are known."""
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
            traces.append(
                line(label, f"run{i}", minutes, used[finite], most=2 * READINGS, dash=dash)
            )
    return traces


def batches(study: Study, records: Sequence[Record]) -> Plot:
    """Seconds of every sampled batch in order."""
    traces = [
        Trace("line", same(study.label_of(record)), study.colour_of(record),
              list(range(1, len(record.content["seconds"]) + 1)),
              [float(f"{value:.4g}") for value in record.content["seconds"]])
        for record in records
    ]  # fmt: skip
    return Plot(
        "sampling-time",
        phrase("figure.batches"),
        phrase("alt.batches"),
        phrase("axis.batch"),
        phrase("axis.seconds"),
        traces,
        phrase("note.batches"),
        from_zero=True,
        sources=tuple(study.of_record(record, "seconds") for record in records),
    )
