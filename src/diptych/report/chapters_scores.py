"""The chapters on scores: values with intervals, differences, the table over steps and eta.

Nothing is called better unless the 95 % interval of its difference leaves out 0, and scores of
unlike protocols are not compared: which field differs is said instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from diptych.errors import UserError
from diptych.metrics.comparison import read_scores
from diptych.metrics.score import DISTANCES, Score, difference
from diptych.metrics.table import interval, number
from diptych.report.blocks import EMPTY, NONE, Block, Plot, Table, Trace
from diptych.report.catalogue import Text, phrase, same
from diptych.report.gather import Record
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, cite, say, significant, words

MOST_FIGURES = 4
DASHES = ("solid", "dash", "dot", "dashdot")
FIELDS = "scores.value, scores.interval, scores.repeats, scores.protocol_id"
Measured = tuple[Record, Score]


def scores(study: Study) -> Iterator[Block]:
    """All scores with their intervals and protocols, their differences, figures of them."""
    measured = [pair for record in study.found.of("scores") for pair in _read(record)]
    if not measured:
        return
    metrics = list(dict.fromkeys(score.metric for _, score in measured))
    compared = False
    for metric in metrics:
        own = [pair for pair in measured if pair[1].metric == metric]
        if len(own) == 1:
            yield from cite([_alone(study, *own[0])], study.of_record(own[0][0], FIELDS))
        for a, b in combinations(own[:4], 2):
            sources = [study.of_record(record, FIELDS) for record, _ in (a, b)]
            yield from cite([_difference(study, a, b)], *sources)
            compared = True
    if compared:
        yield say("score.seeds", "scores", "score.seeds")
    yield _table(study, measured)
    for metric in metrics[:MOST_FIGURES]:
        own = [pair for pair in measured if pair[1].metric == metric]
        if len(own) > 1:
            yield _figure(study, metric, own)


def _read(record: Record) -> list[Measured]:
    try:
        return [(record, score) for score in read_scores(record.path).values()]
    except UserError:
        return []  # damaged, or changed by hand: no number of it is shown


def _alone(study: Study, record: Record, score: Score) -> Sentence:
    ends = score.interval
    shown = words("score.alone_interval", low=ends[0], high=ends[1]) if ends else EMPTY
    return say(f"score.{score.metric}", "scores", "score.alone", metric=score.metric,
               run=study.label_of(record), value=score.value, interval=shown)  # fmt: skip


def _difference(study: Study, one: Measured, other: Measured) -> Sentence:
    """B minus A in words, or why there is none."""
    a, b = one[1], other[1]
    named = {"metric": a.metric, "a": study.label_of(one[0]), "b": study.label_of(other[0])}
    key = f"score.{a.metric}.{named['a']}.{named['b']}"
    unlike = [k for k in dict.fromkeys((*a.protocol, *b.protocol))
              if a.protocol.get(k) != b.protocol.get(k)]  # fmt: skip
    if unlike:
        return say(key, "scores", "score.unlike", key=unlike[0], **named)
    values: dict[str, Any] = {"value_a": a.value, "value_b": b.value}
    found = difference(a, b)
    if found["interval"] is None:
        return say(key, "scores", "score.short", **named, **values)
    low, high = found["interval"]
    values |= {"sets_a": len(a.repeats), "sets_b": len(b.repeats), "low": low, "high": high}
    values["gap"] = found["difference"]
    if low <= 0 <= high:
        return say(key, "scores", "score.none", **named, **values)
    return say(key, "scores", "score.shown", word=_judged(a.metric, high < 0), **named, **values)


def _judged(metric: str, lower: bool) -> Text:
    less_is_better = metric.rpartition("-")[2] in DISTANCES
    good = "better" if lower == less_is_better else "worse"
    return phrase(f"score.{good}_{'lower' if lower else 'higher'}")


def _table(study: Study, measured: Sequence[Measured]) -> Table:
    keys = ("metric", "of", "value", "interval", "sets", "reference", "protocol")
    rows = []
    for record, score in measured:
        p = score.protocol
        split = f":{p['reference.split']}" if p.get("reference.split") else ""
        against = f"{p['reference.name']}{split}" if p.get("reference.name") else "\N{EN DASH}"
        rows.append([
            same(score.metric), same(study.label_of(record)), same(number(score.value)),
            _range(interval(score.interval)) if score.interval else NONE,
            same(f"{max(1, len(score.repeats))} x {p.get('num')}"), same(against),
            same(score.protocol_id),
        ])  # fmt: skip
    records = {str(record.path): record for record, _ in measured}
    sources = tuple(study.of_record(record, FIELDS) for record in records.values())
    return Table(phrase("caption.scores"), [phrase(f"column.{k}") for k in keys], rows, sources)


def _figure(study: Study, metric: str, measured: Sequence[Measured]) -> Plot:
    """Values with intervals, a point a run."""
    traces = [
        Trace("points", same(study.label_of(record)), study.colour_of(record),
              [study.label_of(record)], [score.value],
              low=[score.interval[0]] if score.interval else None,
              high=[score.interval[1]] if score.interval else None)
        for record, score in measured
    ]  # fmt: skip
    return Plot(
        f"score-{metric}",
        words("figure.score", metric=metric),
        phrase("alt.score"),
        EMPTY,
        same(metric),
        traces,
        phrase("note.intervals"),
        sources=tuple(study.of_record(record, FIELDS) for record, _ in measured),
    )


def sweeps(study: Study) -> Iterator[Block]:
    """Steps x eta: seconds an image and scores of each panel, and figures of them."""
    for n, record in enumerate(study.found.of("sweep")):
        cells = record.content.get("cells") or []
        if not cells:
            continue
        request = record.content["request"]
        source = study.of_record(record, "cells, request")
        panels = list(dict.fromkeys(cell["backend"] for cell in cells))
        metrics = [key.removesuffix("_protocol_id") for key in cells[0]
                   if key.endswith("_protocol_id")]  # fmt: skip
        if len(panels) > 1:
            said = say("sweep.one", "sweep", "sweep.one", sha=str(request["weights_sha256"]))
            yield from cite([said], source)
        yield _sweep_table(record, cells, panels, metrics, source)
        for metric in metrics[:MOST_FIGURES]:
            yield _sweep_figure(study, cells, metric, source, n)
        yield _sweep_figure(study, cells, "seconds_per_image", source, n)


def _sweep_table(
    record: Record, cells: Sequence[dict[str, Any]], panels: Sequence[str],
    metrics: Sequence[str], source: Any,
) -> Table:  # fmt: skip
    """A row for each sampler and number of steps, columns for each panel."""
    head = [phrase("column.sampler"), phrase("column.steps")]
    for panel in panels:
        head += [same(f"{panel}: s/image"), *(same(f"{panel}: {metric}") for metric in metrics)]
    at = {(_sampler(cell), cell["steps"], cell["backend"]): cell for cell in cells}
    rows = []
    for sampler, steps in sorted({(_sampler(cell), cell["steps"]) for cell in cells}):
        row = [same(sampler), same(f"{steps:,}")]
        for panel in panels:
            cell = at.get((sampler, steps, panel), {})
            row += [_number(cell.get("seconds_per_image"), 3)]
            row += [_with_interval(cell, metric) for metric in metrics]
        rows.append(row)
    request = record.content["request"]
    caption = words("caption.sweep", num=request.get("num") or 0,
                    repeats=request.get("repeats"), reference=request.get("reference"))  # fmt: skip
    return Table(caption, head, rows, (source,))


def _sampler(cell: dict[str, Any]) -> str:
    """The solver as the sweep names it, and its eta if it has one."""
    eta = cell.get("eta")
    return str(cell.get("solver", "ddim")) + ("" if eta is None else f", eta {eta:g}")


def _range(text: str) -> Text:
    return Text(text, text.replace(" to ", " 至 "))


def _number(value: Any, digits: int = 4) -> Text:
    return same(significant(value, digits)) if isinstance(value, (int, float)) else NONE


def _with_interval(cell: dict[str, Any], metric: str) -> Text:
    value, low, high = (cell.get(key) for key in (metric, f"{metric}_low", f"{metric}_high"))
    if low is None or high is None or value is None:
        return _number(value)
    return _range(f"{number(value)} ({interval((low, high))})")


def _sweep_figure(
    study: Study, cells: Sequence[dict[str, Any]], metric: str, source: Any, n: int
) -> Plot:
    traces = []
    samplers = list(dict.fromkeys(_sampler(cell) for cell in cells))
    for panel, sampler in dict.fromkeys((cell["backend"], _sampler(cell)) for cell in cells):
        own = [c for c in cells if (c["backend"], _sampler(c)) == (panel, sampler)]
        own = [c for c in own if c.get(metric) is not None]
        own.sort(key=lambda c: c["network_calls"])
        known = bool(own) and all(c.get(f"{metric}_low") is not None for c in own)
        traces.append(
            Trace("points", same(f"{panel}, {sampler}"), study.panel_colour(panel),
                  [c["network_calls"] for c in own], [float(f"{c[metric]:.5g}") for c in own],
                  low=[c[f"{metric}_low"] for c in own] if known else None,
                  high=[c[f"{metric}_high"] for c in own] if known else None,
                  dash=DASHES[samplers.index(sampler) % 4])
        )  # fmt: skip
    timed = metric == "seconds_per_image"
    return Plot(
        f"sweep-{metric.replace('_', '-')}" + (f"-{n + 1}" if n else ""),
        phrase("figure.sweep_time") if timed else words("figure.sweep_score", metric=metric),
        phrase("alt.sweep"),
        phrase("axis.calls"),
        phrase("axis.seconds_image") if timed else same(metric),
        traces,
        EMPTY if timed else phrase("note.intervals"),
        log_x=True,
        log_y=timed,
        sources=(source,),
    )
