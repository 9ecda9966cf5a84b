"""Chapter: times. Seconds of steps and epochs, and the slow steps with their causes.

A ratio of times comes with the machine's load from the records. Slow steps and causes come from
`diptych.profiling.outliers`; `diptych profile --outliers` prints the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diptych.figures.numbers import seconds, significant
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.catalogue import known as named
from diptych.pages.document import Block, Looks, Plot, Table, Trace, cells_of, grid_of, head, plot
from diptych.pages.template import (
    Sentence,
    about,
    cite,
    joined,
    pick,
    ratio_sentence,
    say,
    words,
)
from diptych.pages.traces import line, listed, thinned
from diptych.report.chapters.setup import cells
from diptych.report.numbers.pair import PairNumbers, RunNumbers
from diptych.report.sources.collection import Study

TIMED = "step, data_s, compute_s, synced"
RECORDED = ("resources.jsonl", "events.jsonl")
QUANTILES = 200
TIMES = (
    ("median", "median", seconds),
    ("p95", "p95", seconds),
    ("p99", "p99", seconds),
    ("max", "max", seconds),
    ("max_step", "max_step", lambda x: f"{x:,}"),
    ("mean", "mean", seconds),
    ("data_share", "data_share", lambda x: f"{significant(100 * x)} %"),
    ("synced", "synced_steps", lambda x: f"{x:,}"),
)


def step_times(study: Study) -> Iterator[Block]:
    """The ratios, every step, their distribution, and a table."""
    for pair in study.pairs:
        yield from cite(ratio_of_times(pair), *study.metrics(TIMED, *pair.at))
    times = [each.step_time for each in study.numbers]
    for i, (label, numbers) in enumerate(zip(study.labels, times, strict=True)):
        if numbers and (not study.pairs or len(study.runs) > 2):
            said = about(label, "cost.step", **pick(numbers, "median p95 max", step="max_step"))
            yield said.by(*study.metrics(TIMED, i))
    for figure in (step_plot(study), _distribution_plot(study)):
        if figure:
            yield figure
    rows = [(row, cells(times, key, show)) for row, key, show in TIMES]
    yield grid_of("times", study.labels, rows, study.metrics(TIMED))


def ratio_of_times(pair: PairNumbers) -> Iterator[Sentence]:
    """The ratio of the median step times, and its caveats."""
    a, b = pair.both
    if pair.step_ratio:
        what = ("step_time", "slower", "faster")
        yield ratio_sentence("time.ratio", what, pair.step_ratio, a.label, b.label)
        besides = [phrase("time.caveat_machines")] if pair.machine_differences else []
        if pair.work_differences:
            besides.append(words("time.caveat_work", keys=pair.work_differences))
        yield _caveat(pair, joined(besides, "", ""))
    if a.step_time and b.step_time:
        shares = {"share_a": a.step_time["data_share"], "share_b": b.step_time["data_share"]}
        yield say("time.data", **shares, **pair.names)


def _caveat(pair: PairNumbers, machines: Text) -> Sentence:
    """The possible effect of the machine's load on a ratio of times."""
    both, named = pair.together, {**pair.names, "machines": machines}
    if both is None:
        return say("time.caveat", **named)
    if not both["seconds"]:
        return say("time.caveat", "time.caveat_apart", **named)
    spent = {"together": both["seconds"], "share": both["share"]}
    return say("time.caveat", "time.caveat_together", **named, **spent)


def step_plot(study: Study) -> Plot | None:
    """Seconds of every synchronised step; the slowest lie above; zoom in on them."""
    traces: list[Trace] = []
    tops, sizes, longest = [], [], 0.0
    for i, each in enumerate(study.numbers):
        step, time = each.run.step[each.run.synced], each.run.step_s[each.run.synced]
        if time.size:
            traces.append(line(same(each.label), f"run{i}", step, time))
            sizes.append(int(time.size))
            tops.append(min(float(np.max(time)), 2.2 * float(np.percentile(time, 95))))
            longest = max(longest, float(np.max(time)))
    if not traces:
        return None
    top = 1.05 * max(tops)
    notes = [thinned(sizes), *([words("note.above", longest=longest)] if longest > top else [])]
    sources = study.metrics(TIMED)
    return plot("step-time", "step", "seconds", traces, joined(notes), sources, y_range=(0.0, top))


def _distribution_plot(study: Study) -> Plot | None:
    """For each run, the fraction of synchronised steps that took at most x."""
    traces = []
    for i, each in enumerate(study.numbers):
        time = np.sort(each.run.step_s[each.run.synced])
        if time.size < 2:
            continue
        at = np.unique(np.linspace(0, time.size - 1, QUANTILES).round().astype(np.int64))
        share = 100.0 * (at + 1) / time.size
        traces.append(Trace("line", same(each.label), f"run{i}", listed(time[at]), listed(share)))
    if not traces:
        return None
    sources = study.metrics("data_s, compute_s, synced")
    axes, note = ("seconds_step", "share"), "distribution"
    return plot("step-time-distribution", *axes, traces, note, sources, log_x=True)


def slow(study: Study) -> Iterator[Block]:
    """The slow steps of each run, and their causes."""
    for i, each in enumerate(study.numbers):
        there = [name for name in RECORDED if (study.folders[i] / name).is_file()]
        sources = [study.source(i, "metrics.jsonl", f"{TIMED}, ended, queue_s")]
        sources += [study.source(i, name, "all") for name in there]
        yield from cite(slow_sentences(each), *sources)
        found = each.slow.found
        if found and found["by_cause"]:
            sums = found["by_cause"].items()
            rows = [[named("cause", c), f"{s['steps']:,}", seconds(s["excess_s"])] for c, s in sums]
            caption = words("caption.outliers", run=each.label, k=found["k"])
            titles = head("cause", "steps", "excess")
            yield Table(caption, titles, cells_of(rows), tuple(sources))


def slow_sentences(each: RunNumbers) -> Iterator[Sentence]:
    """Slow steps of one run and the number with a recorded cause, or a note that none was timed."""
    label, found, damaged = each.label, each.slow.found, each.slow.damaged
    if each.step_time is None:
        yield about(label, "time.none")
    elif damaged is not None:
        file = {"file": damaged} if damaged else {}
        template = "slow.damaged" if damaged else "slow.damaged_words"
        yield about(label, template, "slow.damaged", **file)
    elif found is not None:
        yield from _slow(label, found)


def _slow(label: str, found: Mapping[str, Any]) -> Iterator[Sentence]:
    steps, evidence = [each["step"] for each in found["outliers"]], found["evidence"]
    numbers = pick(found, "k", n="steps", median="median_s")
    numbers["between"] = phrase("slow.between" if "ended" in evidence else "term.nothing")
    if not steps:
        yield about(label, "slow.no_steps", "slow.steps", **numbers)
        return
    missing = int(found["unexplained"])
    if missing in (0, len(steps)):
        causes = phrase("slow.all" if missing == 0 else "slow.none")
    else:
        causes = words("slow.some", known=len(steps) - missing, unexplained=missing)
    numbers |= pick(found, "share", excess="excess_s") | {"count": len(steps), "steps": steps}
    yield about(label, "slow.steps", causes=causes, **numbers)
    if not evidence:
        yield about(label, "slow.bare")
    for record in ("resources", "events"):
        if evidence and record not in evidence:
            yield about(label, f"slow.lacking_{record}", f"slow.lacking.{record}")


def epochs(study: Study) -> Iterator[Block]:
    """Seconds of the complete epochs: in words, as a figure, and as a table."""
    fields = "epoch, data_s, compute_s"
    for pair in study.pairs:
        yield from cite(epoch_sentences(pair), *study.metrics(fields, *pair.at))
    for i, each in enumerate(study.numbers):
        own, times = each.epoch_time["complete"], each.epoch_time
        if own and not study.pairs:
            said = about(each.label, "cost.epoch", median=times["median"], n=len(own))
            yield said.by(*study.metrics(fields, i))
    figure = _epoch_plot(study)
    if figure:
        yield figure
        complete = [each.epoch_time["complete"] for each in study.numbers]
        known = [{row["epoch"]: seconds(row["seconds"]) for row in rows} for rows in complete]
        rows = [
            (same(f"{epoch + 1}"), [each.get(epoch) for each in known])
            for epoch in sorted({epoch for each in known for epoch in each})
        ]
        yield grid_of("epochs", study.labels, rows, study.metrics(fields), long=len(rows) > 12)


def epoch_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """Duration of the complete epochs, and the part of it measured without synchronisation."""
    a, b = (each.epoch_time for each in pair.both)
    runs = [(each.label, each.epoch_time) for each in pair.both]
    for label, run in runs:
        if not run["complete"]:
            yield about(label, "time.no_epoch")
    if a["complete"] and b["complete"]:
        numbers = {"median_a": a["median"], "n_a": len(a["complete"])}
        numbers |= {"median_b": b["median"], "n_b": len(b["complete"])}
        yield say("time.epoch", **numbers, **pair.names)
    for label, run in runs:
        if run["complete"] and run["unsynced_steps"]:
            yield about(label, "time.unsynced", k=run["unsynced_steps"], n=run["steps"])


def _epoch_plot(study: Study) -> Plot | None:
    """Seconds of every complete epoch as bars, from zero, the last one within the axes."""
    traces = []
    for i, each in enumerate(study.numbers):
        rows = each.epoch_time["complete"]
        if rows:
            x, y = [row["epoch"] + 1 for row in rows], [row["seconds"] for row in rows]
            hover = [seconds(value) for value in y]
            traces.append(Trace("bars", same(each.label), f"run{i}", x, y, hover=hover))
    if not traces:
        return None
    places = [x for trace in traces for x in trace.x]
    top = max(y for trace in traces for y in trace.y if y is not None)
    sources = study.metrics("epoch, data_s, compute_s")
    x_range, y_range = (min(places) - 0.6, max(places) + 0.6), (0.0, 1.08 * top or 1.0)
    looks: Looks = {"x_range": x_range, "y_range": y_range}
    return plot("epoch-time", "epoch", "seconds", traces, "epoch_time", sources, **looks)
