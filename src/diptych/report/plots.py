"""The figures of a report as traces, from the records alone.

Long lines are thinned and broken at gaps as `traces` says, and the figure tells the reader.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.figures.numbers import seconds
from diptych.report.blocks import EMPTY, Plot, Trace
from diptych.report.catalogue import phrase, same
from diptych.report.figures import ROUNDING
from diptych.report.statistics import STRIDE, common_steps, epoch_time, relative_difference
from diptych.report.subjects import Pairing, Study
from diptych.report.traces import line, listed, thinned, wide
from diptych.report.wording import joined, words
from diptych.runs.reader import Run
from diptych.types import Float64

MOST_SLOW = 300
QUANTILES = 200


def _lines(study: Study, pick: Callable[[Run], Float64], styled: bool = False) -> list[Trace]:
    style = _styles(study) if styled else {}
    return [
        line(same(study.labels[i]), f"run{i}", run.step, pick(run), **style.get(i, {}))
        for i, run in enumerate(study.runs)
        if np.isfinite(pick(run)).any()
    ]


def _styles(study: Study) -> dict[int, dict[str, Any]]:
    """Of two matched runs, whose lines lie upon each other, one is wide and pale, one dashed."""
    matched = [pair for pair in study.pairings if pair.matched]
    above = {pair.b for pair in matched}
    return {pair.a: {"under": True} for pair in matched if pair.a not in above} | {
        run: {"dash": "dash"} for run in above
    }


def loss(study: Study) -> Plot:
    """The losses of all runs, every step."""
    return Plot(
        "loss",
        phrase("figure.loss"),
        phrase("alt.loss"),
        phrase("axis.step"),
        phrase("axis.loss"),
        _lines(study, lambda run: run.loss, styled=True),
        thinned([run.step.size for run in study.runs]),
        log_y=wide([run.loss for run in study.runs]),
        sources=study.metrics("step, loss"),
    )


def every_200(study: Study) -> Plot | None:
    """The losses of all runs at every 200th step; None where no run has such a step."""
    traces, values, style = [], [], _styles(study)
    for i, run in enumerate(study.runs):
        at = run.step % STRIDE == 0
        if at.any():
            x, y = run.step[at], run.loss[at]
            values.append(y)
            own = style.get(i, {})
            traces.append(line(same(study.labels[i]), f"run{i}", x, y, most=x.size, **own))
    if not traces:
        return None
    return Plot(
        f"loss-every-{STRIDE}",
        words("figure.every", stride=STRIDE),
        phrase("alt.every"),
        phrase("axis.step"),
        phrase("axis.loss"),
        traces,
        phrase("note.single"),
        log_y=wide(values),
        sources=study.metrics("step, loss"),
    )


def difference(study: Study, pairs: Sequence[Pairing]) -> Plot | None:
    """|a - b| / max(|a|, |b|) of the losses of matched runs; None where there is none."""
    traces, sizes, used = [], [], set()
    for pair in pairs:
        a, b = study.runs[pair.a], study.runs[pair.b]
        common = common_steps(a, b)
        if common is None:
            continue
        step = a.step[common[0]]
        relative = relative_difference(a.loss[common[0]], b.loss[common[1]])
        relative = np.where(relative > 0, relative, np.nan)  # a log scale has no place for 0
        if np.isfinite(relative).any():
            label = f"{study.labels[pair.a]} / {study.labels[pair.b]}"
            colour = "ink" if len(pairs) == 1 else f"run{pair.b}"
            traces.append(line(same(label), colour, step, relative))
            sizes.append(step.size)
            used |= {pair.a, pair.b}
    if not traces:
        return None
    ends = [min(t.x[0] for t in traces), max(t.x[-1] for t in traces)]
    rounding = Trace("line", phrase("note.rounding"), "soft", ends, [ROUNDING] * 2, dash="dash")
    return Plot(
        "difference",
        phrase("figure.difference"),
        phrase("alt.difference"),
        phrase("axis.step"),
        phrase("axis.difference"),
        [*traces, rounding],
        thinned(sizes),
        log_y=True,
        sources=study.metrics("step, loss", *sorted(used)),
    )


def step_times(study: Study) -> Plot | None:
    """Seconds of every synchronised step; the slowest stand above and can be zoomed to."""
    traces: list[Trace] = []
    tops, sizes = [], []
    for i, run in enumerate(study.runs):
        step, time = run.step[run.synced], run.step_s[run.synced]
        if time.size:
            traces.append(line(same(study.labels[i]), f"run{i}", step, time))
            sizes.append(int(time.size))
            tops.append(min(float(np.max(time)), 2.2 * float(np.percentile(time, 95))))
    if not traces:
        return None
    beyond = max(float(run.step_s[run.synced].max(initial=0.0)) for run in study.runs)
    top = 1.05 * max(tops)
    above = words("note.above", longest=beyond) if beyond > top else EMPTY
    return Plot(
        "step-time",
        phrase("figure.step_time"),
        phrase("alt.step_time"),
        phrase("axis.step"),
        phrase("axis.seconds"),
        traces,
        joined([text for text in (thinned(sizes), above) if text.en]),
        from_zero=True,
        y_range=(0.0, top),
        sources=study.metrics("step, data_s, compute_s, synced"),
    )


def distribution(study: Study) -> Plot | None:
    """For each run, the share of synchronised steps that took no longer than x."""
    traces = []
    for i, run in enumerate(study.runs):
        time = np.sort(run.step_s[run.synced])
        if time.size < 2:
            continue
        at = np.unique(np.linspace(0, time.size - 1, QUANTILES).round().astype(np.int64))
        share = 100.0 * (at + 1) / time.size
        traces.append(
            Trace("line", same(study.labels[i]), f"run{i}", listed(time[at]), listed(share))
        )
    if not traces:
        return None
    return Plot(
        "step-time-distribution",
        phrase("figure.distribution"),
        phrase("alt.distribution"),
        phrase("axis.seconds_step"),
        phrase("axis.share"),
        traces,
        phrase("note.distribution"),
        log_x=True,
        from_zero=True,
        sources=study.metrics("data_s, compute_s, synced"),
    )


def epoch_times(study: Study) -> Plot | None:
    """Seconds of every complete epoch as bars."""
    traces = []
    for i, run in enumerate(study.runs):
        rows = epoch_time(run)["complete"]
        if rows:
            x = [row["epoch"] + 1 for row in rows]
            y = [row["seconds"] for row in rows]
            hover = [seconds(value) for value in y]
            traces.append(Trace("bars", same(study.labels[i]), f"run{i}", x, y, hover=hover))
    if not traces:
        return None
    return Plot(
        "epoch-time",
        phrase("figure.epoch_time"),
        phrase("alt.epoch_time"),
        phrase("axis.epoch"),
        phrase("axis.seconds"),
        traces,
        phrase("note.epoch_time"),
        from_zero=True,
        sources=study.metrics("epoch, data_s, compute_s"),
    )


def memory(study: Study) -> Plot | None:
    """Memory over the steps, from zero."""
    traces = _lines(study, lambda run: run.memory_mb)
    if not traces:
        return None
    return Plot(
        "memory",
        phrase("figure.memory"),
        phrase("alt.memory"),
        phrase("axis.step"),
        same("MB"),
        traces,
        thinned([run.step.size for run in study.runs]),
        from_zero=True,
        sources=study.metrics("step, memory_mb"),
    )
