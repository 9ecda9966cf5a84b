"""The figures of a report as traces, from the records alone.

A run of more than MOST points is drawn as medians of consecutive steps with the range of the raw
values, least to most, as a band behind them: no peak is lost, and the figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from diptych.report.blocks import EMPTY, Plot, Trace
from diptych.report.catalogue import Text, phrase, same
from diptych.report.drawing import bins
from diptych.report.figures import ROUNDING
from diptych.report.records import Floats, Ints, Run
from diptych.report.statistics import STRIDE, common_steps, epoch_time, relative_difference
from diptych.report.subjects import Pairing, Study
from diptych.report.wording import joined, seconds, words

MOST = 1200
MOST_SLOW = 300
QUANTILES = 200
DASHES = ("solid", "dash", "dot", "dashdot")


def listed(values: Floats | Ints) -> list[float | None]:
    """Numbers for JSON with six digits; None for what is not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def line(label: str, colour: str, step: Ints, value: Floats) -> Trace:
    """A line over the steps, thinned to medians and a band where it is long."""
    if step.size <= MOST:
        return Trace("line", same(label), colour, step.tolist(), listed(value))
    middle, median, least, most = bins(step, value, MOST // 2)
    x = [round(float(m), 1) for m in middle]
    return Trace(
        "line", same(label), colour, x, listed(median), low=listed(least), high=listed(most)
    )


def thinned(sizes: Sequence[int]) -> Text:
    """What the reader must know of lines of so many points."""
    size = max(sizes, default=0)
    if size <= MOST:
        return phrase("note.every_step")
    return words("note.thinned", n=-(-size // (MOST // 2)))


def _lines(study: Study, pick: Callable[[Run], Floats]) -> list[Trace]:
    return [
        line(study.labels[i], f"run{i}", run.step, pick(run))
        for i, run in enumerate(study.runs)
        if np.isfinite(pick(run)).any()
    ]


def wide(values: Sequence[Floats]) -> bool:
    """Whether a log scale shows the values better."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    return bool(known.size and known.min() > 0 and known.max() > 8 * known.min())


def loss(study: Study) -> Plot:
    """The losses of all runs, every step."""
    return Plot(
        "loss",
        phrase("figure.loss"),
        phrase("alt.loss"),
        phrase("axis.step"),
        phrase("axis.loss"),
        _lines(study, lambda run: run.loss),
        thinned([run.step.size for run in study.runs]),
        log_y=wide([run.loss for run in study.runs]),
        sources=study.metrics("step, loss"),
    )


def every_200(study: Study) -> Plot | None:
    """The losses of all runs at every 200th step; None where no run has such a step."""
    traces, values = [], []
    for i, run in enumerate(study.runs):
        at = run.step % STRIDE == 0
        if at.any():
            x, y = run.step[at], run.loss[at]
            values.append(y)
            traces.append(
                Trace("line", same(study.labels[i]), f"run{i}", x.tolist(), listed(y),
                      dash=DASHES[i % 4])
            )  # fmt: skip
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
            traces.append(line(label, colour, step, relative))
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
            traces.append(line(study.labels[i], f"run{i}", step, time))
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
