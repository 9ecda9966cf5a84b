"""Chapter: phases of a step beside the whole step, from a profile; else data and compute.

A step with a wait between its phases is no longer the step that trains, so the table ends with the
whole step and with split / whole, the cost of the splitting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.figures.numbers import seconds, significant
from diptych.pages.catalogue import Text, known, phrase, same
from diptych.pages.document import Block, GridRow, Plot, Trace, grid_of, plot
from diptych.pages.template import joined, say, words
from diptych.profiling.split import PHASES
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record

FIELDS = "phases, split, unsplit, overhead, memory"
EXPLAINED = ("data", "to_device")  # phases measured differently from training
HELD = (("profile_rss", "rss_mb"), ("profile_allocated", "allocated_mb"),
        ("profile_reserved", "reserved_mb"), ("profile_live", "live_vars"))  # fmt: skip
Content = Mapping[str, Any]


def chapter(study: Study) -> Iterator[Block]:
    """The parts of a step: from a profile if one was recorded, else data and computation."""
    profiles = study.found.of("profile")
    figure = _phases_plot(study, profiles) if profiles else _split_plot(study)
    if figure:
        yield figure
    if profiles:
        yield from _table(study, profiles)


def _table(study: Study, profiles: Sequence[Record]) -> Iterator[Block]:
    contents = [record.content for record in profiles]
    names = list(dict.fromkeys(p["name"] for content in contents for p in content["phases"]))
    rows: list[GridRow] = [
        (known("phase", name), [_phase(content, name) for content in contents]) for name in names
    ]
    rows += [
        ("parts_sum", [_median(content.get("split")) for content in contents]),
        ("whole_step", [_median(content.get("unsplit")) for content in contents]),
        ("split_whole", [_overhead(content.get("overhead")) for content in contents]),
    ]
    rows += [(row, [_held(content, key) for content in contents]) for row, key in HELD]
    labels = [study.label_of(record) for record in profiles]
    sources = study.of_records(profiles, FIELDS)
    yield grid_of("phases", labels, rows, sources)
    for record in profiles:
        identity = str(record.content.get("config_identity") or "")
        if identity and not study.trained_with(identity):
            label, preset = study.label_of(record), str(record.content.get("preset"))
            key, named = f"cost.profile_other.{label}", {"panel": label, "preset": preset}
            other = say(key, "cost.profile_other", identity=identity, **named)
            yield other.by(study.of_record(record, "config_identity, preset"))
    noted = {p["name"] for content in contents for p in content["phases"] if p.get("note")}
    for name in EXPLAINED:
        if name in noted:
            yield say(f"cost.phase.{name}", f"cost.phase_{name}").by(*sources)


def _phase(content: Content, name: str) -> Text | str | None:
    """A phase's median and share, or a note that it was fused; kernel count for compiling."""
    phase = next((each for each in content["phases"] if each["name"] == name), None)
    if phase is None:
        return None
    value, share = phase["median_s"], phase["share"]
    if phase["fused"]:
        return phrase("cell.fused")
    if value is None:
        return phase["note"] or None
    if phase["kernels"]:
        return words("cell.kernels", time=value, n=phase["kernels"])
    return seconds(value) + (f" ({significant(100 * share, 2)} %)" if share else "")


def _median(spread: Content | None) -> str | None:
    return None if spread is None else seconds(spread["median_s"])


def _overhead(found: Content | None) -> Text | None:
    if found is None:
        return None
    if found.get("low") is None or found.get("high") is None:
        return words("cell.ratio_alone", ratio=found["ratio"])
    return words("cell.ratio", ratio=found["ratio"], low=found["low"], high=found["high"])


def _held(content: Content, key: str) -> Text | str | None:
    """A memory number before the first profiled step, and after the last."""
    values = [row[key] for row in content.get("memory") or () if row.get(key) is not None]
    if not values:
        return None
    show: Callable[[float], str] = (
        (lambda x: f"{x:,.0f} MiB") if key.endswith("_mb") else (lambda x: f"{x:,.0f}")
    )
    return words("cell.from_to", first=show(values[0]), last=show(values[-1]))


def _phases_plot(study: Study, records: Sequence[Record]) -> Plot | None:
    """The medians of the parts of a step as stacked bars, milliseconds, without compiling."""
    labels = [study.label_of(record) for record in records]
    labels = [  # a bar each: two profiles of one panel may be there
        label if labels.count(label) == 1 else f"{label}: {record.path.stem}"
        for label, record in zip(labels, records, strict=True)
    ]
    traces = []
    for k, part in enumerate(PHASES):
        found = [_median_of(record, part) for record in records]
        if any(value is not None for value in found):
            y = [None if value is None else float(f"{1000 * value:.4g}") for value in found]
            traces.append(Trace("bars", known("phase", part), f"part{k}", labels, y))
    if not traces:
        return None
    sources = study.of_records(records, "phases.median_s")
    return plot("split", same(""), "milliseconds", traces, "phases", sources, stacked=True)


def _median_of(record: Record, part: str) -> float | None:
    for phase in record.content["phases"]:
        if phase["name"] == part and phase.get("median_s") is not None:
            return float(phase["median_s"])
    return None


def _split_plot(study: Study) -> Plot | None:
    """The median wait for data and the median computation of a synchronised step, milliseconds.

    The note gives the time beyond the median for compiling and first steps separately.
    """
    timed = [each for each in study.numbers if each.step_time]
    if not timed:
        return None
    labels = [each.label for each in timed]
    traces = []
    for k, key in ((0, "data_s"), (2, "compute_s")):
        medians = [1000 * float(np.median(getattr(e.run, key)[e.run.synced])) for e in timed]
        y = [float(f"{value:.4g}") for value in medians]
        traces.append(Trace("bars", phrase(f"split.{key}"), f"part{k}", labels, y))
    once = [(each.label, each.slow.spent("compile", "first step")) for each in timed]
    told = [f"{label} {seconds(spent)}" for label, spent in once if spent > 0]
    sources = study.metrics("data_s, compute_s, synced")
    compiled = [words("note.split_once", runs=told)] if told else []
    note = joined([phrase("note.split"), *compiled])
    return plot("split", same(""), "milliseconds", traces, note, sources, stacked=True)
