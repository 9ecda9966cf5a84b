"""Chapter: sweeps. Steps x eta, seconds per image and scores, all backends in one table.

Sweeps with the same request, apart from weights, form one study of the samplers: one sweep per
backend and one sweep of both give the same table and figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.evaluation.score_table import interval, number
from diptych.figures.numbers import significant
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import EMPTY, NONE, Block, Looks, Plot, Table, Trace, head, plot
from diptych.pages.png import PARTS
from diptych.pages.template import Source, say, words
from diptych.pages.traces import DASHES, MARKERS, unmagnified
from diptych.report.chapters.scores import ranged
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record

MOST_FIGURES = 4
FIELDS = "cells, request"
Cells = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """The cells of one backend in one sweep."""

    label: str
    colour: str
    weights: str
    cells: Cells


def chapter(study: Study) -> Iterator[Block]:
    """Steps x eta: seconds per image and scores of each backend, and figures of them."""
    groups: dict[str, list[Record]] = {}
    for record in study.found.of("sweep"):
        if record.content["cells"]:
            groups.setdefault(_request(record.content["request"]), []).append(record)
    for n, records in enumerate(groups.values()):
        columns = list(_columns(study, records))
        sources = study.of_records(records, FIELDS)
        keys = dict.fromkeys(key for column in columns for key in column.cells[0])
        metrics = [k.removesuffix("_protocol_id") for k in keys if k.endswith("_protocol_id")]
        yield from _said(columns, sources, n)
        yield _table(records[0].content["request"], columns, metrics, sources)
        for metric in (*metrics[:MOST_FIGURES], "seconds_per_image"):
            yield _figure(columns, metric, sources, n)


def _request(request: Mapping[str, Any]) -> str:
    """The request without the identity of the weights."""
    return json.dumps({k: v for k, v in request.items() if k != "weights_sha256"}, sort_keys=True)


def _columns(study: Study, records: Sequence[Record]) -> Iterator[Column]:
    """One column per backend and sweep, named after its backend if that is unique."""
    found = [
        (record, panel)
        for record in records
        for panel in dict.fromkeys(str(cell["backend"]) for cell in record.content["cells"])
    ]
    panels = [panel for _, panel in found]
    runs = [record.run for record, _ in found]
    for record, panel in found:
        run = study.label_of(record) if record.run is not None else record.path.parent.name
        own = run if runs.count(record.run) == 1 else f"{run}, {panel}"
        alone = panels.count(panel) == 1
        colour = study.panel_colour(panel) if alone or record.run is None else f"run{record.run}"
        cells = [cell for cell in record.content["cells"] if cell["backend"] == panel]
        weights = record.content["request"]["weights_sha256"]
        yield Column(panel if alone else own, colour, weights, cells)


def _said(columns: Sequence[Column], sources: tuple[Source, ...], n: int) -> Iterator[Block]:
    """Sentences on the weights: the same for all backends, or not."""
    if len(columns) < 2:
        return
    weights = list(dict.fromkeys(column.weights for column in columns))
    if len(weights) == 1:
        said = say(f"sweep.one.{n}", "sweep.one", sha=weights[0])
    else:
        told = [f"{column.label} {column.weights:.8}" for column in columns]
        said = say(f"sweep.own.{n}", "sweep.own", weights=told)
    yield said.by(*sources)


def _table(
    request: Mapping[str, Any],
    columns: Sequence[Column],
    metrics: Sequence[str],
    sources: tuple[Source, ...],
) -> Table:
    """One row per sampler and number of steps, columns for each backend."""
    titles = head("sampler", "steps")
    for column in columns:
        titles += [
            words("column.seconds_image", panel=column.label),
            *(same(f"{column.label}: {metric}") for metric in metrics),
        ]
    at = [{(_sampler(cell), cell["steps"]): cell for cell in column.cells} for column in columns]
    rows = []
    for sampler, steps in sorted({place for cells in at for place in cells}):
        row = [same(sampler), same(f"{steps:,}")]
        for cells in at:
            cell = cells.get((sampler, steps), {})
            row += [_number(cell.get("seconds_per_image"), 3)]
            row += [_with_interval(cell, metric) for metric in metrics]
        rows.append(row)
    drawn = {"num": request.get("num") or 0, "repeats": request.get("repeats")}
    caption = words("caption.sweep_alone", **drawn)
    if reference := request.get("reference"):
        caption = words("caption.sweep", reference=reference, **drawn)
    return Table(caption, titles, rows, sources)


def _sampler(cell: Mapping[str, Any]) -> str:
    """The solver as the sweep names it, and its eta if it has one."""
    eta = cell.get("eta")
    return str(cell.get("solver", "ddim")) + ("" if eta is None else f", eta {eta:g}")


def _number(value: Any, digits: int = 4) -> Text:
    return same(significant(value, digits)) if isinstance(value, (int, float)) else NONE


def _with_interval(cell: Mapping[str, Any], metric: str) -> Text:
    value, low, high = (cell.get(key) for key in (metric, f"{metric}_low", f"{metric}_high"))
    if low is None or high is None or value is None:
        return _number(value)
    return ranged(f"{number(value)} ({interval((low, high))})")


def _figure(columns: Sequence[Column], metric: str, sources: tuple[Source, ...], n: int) -> Plot:
    samplers = list(dict.fromkeys(_sampler(cell) for column in columns for cell in column.cells))
    timed = metric == "seconds_per_image"
    alone, traces = len(columns) == 1, list[Trace]()
    for k, column in enumerate(columns):
        under = k == 0 and not alone and not timed
        traces += _traces(column, metric, samplers, alone, under)
    shown = any(trace.low is not None for trace in traces)
    title = phrase("figure.sweep_time") if timed else words("figure.sweep_score", metric=metric)
    name = f"sweep-{metric.replace('_', '-')}" + (f"-{n + 1}" if n else "")
    note = phrase("note.intervals") if shown else EMPTY
    looks: Looks = {"title": title, "y_range": None if timed else unmagnified(traces)}
    y = "seconds_image" if timed else same(metric)
    return plot(name, "calls", y, traces, note, sources, "sweep", log_x=True, log_y=timed, **looks)


def _traces(
    column: Column, metric: str, samplers: Sequence[str], alone: bool, under: bool
) -> Iterator[Trace]:
    """One line per sampler, identified by dash and marker, or colour if there is one backend.

    Lines of backends that draw alike coincide: the first is wide and pale, `under` the others.
    """
    for i, sampler in enumerate(samplers):
        own = [c for c in column.cells if _sampler(c) == sampler and c.get(metric) is not None]
        if not own:
            continue
        own.sort(key=lambda c: c["network_calls"])
        known = all(c.get(f"{metric}_low") is not None for c in own)
        colour = f"part{i % len(PARTS)}" if alone and len(samplers) > 1 else column.colour
        label = same(sampler if alone else f"{column.label}, {sampler}")
        x, y = [c["network_calls"] for c in own], [float(f"{c[metric]:.5g}") for c in own]
        ends = ("low", "high") if known else ()
        marker = MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]
        looks: Looks = {end: [c[f"{metric}_{end}"] for c in own] for end in ends}
        dash = DASHES[i % len(DASHES)]
        yield Trace("points", label, colour, x, y, dash=dash, marker=marker, under=under, **looks)
