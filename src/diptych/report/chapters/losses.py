"""Chapter: losses. The curves of all runs, how far they came, how low they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diptych.figures.numbers import significant
from diptych.report.chapters.setup import planned
from diptych.report.document import Block, Plot, Table, Trace, grid_of, head, plot
from diptych.report.numbers.losses import STRIDE, Numbers
from diptych.report.numbers.pair import PairNumbers
from diptych.report.render.traces import line, thinned, wide
from diptych.report.sources.collection import Study
from diptych.report.text.catalogue import phrase, same
from diptych.report.text.template import Sentence, cite, pick, ratio_sentence, say, words
from diptych.runs.reader import Run
from diptych.types import Float64


def chapter(study: Study) -> Iterator[Block]:
    """The curves of all runs, how far they came, and how low they end."""
    yield _plot(study)
    every = _every_plot(study)
    if every:
        yield every
    for i, each in enumerate(study.numbers):
        yield from cite(
            _state(each.label, each.run),
            *study.metrics("step", i),
            study.source(i, "config.yaml", "train.epochs, train.steps"),
            study.source(i, "environment.json", "starts, dataset_images"),
        )
        yield from cite(not_finite(each.label, each.loss), *study.metrics("loss", i))
    for pair in study.pairs:
        said = [s for s in loss_sentences(pair) if not s.key.startswith("loss.not_finite")]
        yield from cite(said, *study.metrics("loss", *pair.at))
    yield _summary(study)
    if not study.pairs:
        yield from _own_every(study)


def _state(label: str, run: Run) -> Iterator[Sentence]:
    """Whether the run is whole: its end, its gaps, its resumes."""
    last, end = int(run.step[-1]), planned(run)
    yield from torn(label, run)
    if end is not None:
        if last < end:
            yield say(f"run.end.{label}", "run.unfinished", run=label, last=last, planned=end)
        else:
            yield say(f"run.end.{label}", "run.finished", run=label, planned=end)
    if run.gaps:
        missing = sum(high - low + 1 for low, high in run.gaps)
        yield say(
            f"run.gaps.{label}",
            "run.gaps",
            run=label,
            n=missing,
            gaps=len(run.gaps),
            first=run.gaps[0][0],
            last=run.gaps[0][1],
        )
    if run.repeated:
        yield say(f"run.repeated.{label}", "run.repeated", run=label, n=run.repeated)
    again = [step for step in run.starts[1:] if step < last]  # a start with nothing left is none
    if again:
        yield say(f"run.resumed.{label}", "run.resumed", run=label, steps=again)


def torn(label: str, run: Run) -> Iterator[Sentence]:
    """That an unfinished last line was left out."""
    if run.torn:
        yield say(f"torn.{label}", "torn", run=label, last=int(run.step[-1]))


def _summary(study: Study) -> Table:
    keys = (
        ("first", "first"),
        ("last", "last"),
        ("p5", "p5"),
        ("median", "median"),
        ("p95", "p95"),
        ("tail", "last_tenth_mean"),
    )
    numbers = [each.loss for each in study.numbers]
    rows = [
        (
            phrase(f"row.{row}"),
            [None if each[key] is None else significant(each[key], 4) for each in numbers],
        )
        for row, key in keys
    ]
    return grid_of("losses", study.labels, rows, study.metrics("loss"))


def _own_every(study: Study) -> Iterator[Table]:
    for i, run in enumerate(study.runs):
        at = [k for k in range(run.step.size) if run.step[k] % STRIDE == 0]
        if at:
            rows = [[same(f"{run.step[k]:,}"), same(f"{run.loss[k]:.8g}")] for k in at]
            caption = words("caption.every_one", a=study.labels[i], stride=STRIDE)
            titles = [*head("step"), same("loss")]
            yield Table(caption, titles, rows, study.metrics("step, loss", i), long=True)


def loss_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """Which steps were recorded, which losses are no numbers, and how low the losses end."""
    a, b = pair.a.loss, pair.b.loss
    if (a["first_step"], a["last_step"]) != (b["first_step"], b["last_step"]):
        rest = phrase("loss.lengths_rest" if pair.matched else "term.nothing")
        steps = {"from_a": a["first_step"], "to_a": a["last_step"]}
        steps |= {"from_b": b["first_step"], "to_b": b["last_step"]}
        yield say("loss.lengths", rest=rest, **steps, **pair.names)
    for each in pair.both:
        yield from not_finite(each.label, each.loss)
    yield from _loss_end(pair.loss_end, pair.a.label, pair.b.label)


def not_finite(label: str, run: Numbers) -> Iterator[Sentence]:
    """Where the loss of one run is no finite number."""
    if run["not_finite"]:
        yield say(
            f"loss.not_finite.{label}",
            "loss.not_finite",
            run=label,
            **pick(run, "steps", n="not_finite", first="not_finite_first"),
        )


def _loss_end(end: Numbers | None, a: str, b: str) -> Iterator[Sentence]:
    """How low the losses end, over the same steps of both."""
    if end is None:
        return
    steps = {"first": end["first_step"], "last": end["last_step"]}
    yield say(
        "loss.end",
        "loss.end" if end["whole"] else "loss.end_common",
        a=a,
        mean_a=end["a"]["mean"],
        n_a=end["a"]["steps"],
        b=b,
        mean_b=end["b"]["mean"],
        n_b=end["b"]["steps"],
        **({} if end["whole"] else steps),
    )
    if end["ratio"]:
        name = phrase("term.last_loss") if end["whole"] else words("term.loss_between", **steps)
        yield ratio_sentence("loss.ratio", (name, "higher", "lower"), end["ratio"], a, b)


def run_lines(study: Study, pick: Callable[[Run], Float64], styled: bool = False) -> list[Trace]:
    style = _styles(study) if styled else {}
    return [
        line(same(study.labels[i]), f"run{i}", run.step, pick(run), **style.get(i, {}))
        for i, run in enumerate(study.runs)
        if np.isfinite(pick(run)).any()
    ]


def _styles(study: Study) -> dict[int, dict[str, Any]]:
    """Of two matched runs, whose lines lie upon each other, one is wide and pale, one dashed."""
    matched = [pair.at for pair in study.pairs if pair.matched]
    above = {b for _, b in matched}
    return {a: {"under": True} for a, _ in matched if a not in above} | {
        run: {"dash": "dash"} for run in above
    }


def _plot(study: Study) -> Plot:
    """The losses of all runs, every step."""
    traces = run_lines(study, lambda run: run.loss, styled=True)
    return plot(
        "loss",
        "step",
        "loss",
        traces,
        thinned([run.step.size for run in study.runs]),
        study.metrics("step, loss"),
        log_y=wide([run.loss for run in study.runs]),
    )


def _every_plot(study: Study) -> Plot | None:
    """The losses of all runs at every 200th step; None where no run has such a step."""
    traces, values, style = [], [], _styles(study)
    for i, each in enumerate(study.numbers):
        at = each.run.step % STRIDE == 0
        if at.any():
            x, y = each.run.step[at], each.run.loss[at]
            values.append(y)
            own = style.get(i, {})
            traces.append(line(same(each.label), f"run{i}", x, y, most=x.size, **own))
    if not traces:
        return None
    return plot(
        f"loss-every-{STRIDE}",
        "step",
        "loss",
        traces,
        "single",
        study.metrics("step, loss"),
        key="every",
        title=words("figure.every", stride=STRIDE),
        log_y=wide(values),
    )
