"""Chapter: losses. The curves of all runs, their last steps, their final losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diptych.figures.numbers import significant
from diptych.pages.catalogue import phrase, same
from diptych.pages.document import Block, Plot, Table, Trace, cells_of, grid_of, head, plot
from diptych.pages.template import Sentence, about, cite, pick, ratio_sentence, say, words
from diptych.pages.traces import line, thinned, wide
from diptych.report.chapters.setup import cells
from diptych.report.numbers.losses import STRIDE, Numbers
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.collection import Study
from diptych.runs.reader import Run, Series, last_step
from diptych.types import Float64


def chapter(study: Study) -> Iterator[Block]:
    """The curves of all runs, their last steps, and their final losses."""
    yield loss_plot(study)
    every = every_plot(study)
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
    yield summary(study)
    if not study.pairs:
        yield from own_every(study)


def _state(label: str, run: Run) -> Iterator[Sentence]:
    """Sentences on the completeness of a run: its end, its gaps, its resumes."""
    last, end = int(run.step[-1]), last_step(run.config, run.environment)
    yield from torn(label, run)
    if end is not None and last < end:
        yield about(label, "run.unfinished", "run.end", last=last, planned=end)
    elif end is not None:
        yield about(label, "run.finished", "run.end", planned=end)
    if run.gaps:
        first, upto = run.gaps[0]
        missing = sum(high - low + 1 for low, high in run.gaps)
        yield about(label, "run.gaps", n=missing, gaps=len(run.gaps), first=first, last=upto)
    if run.repeated:
        yield about(label, "run.repeated", n=run.repeated)
    again = [step for step in run.starts[1:] if step < last]  # ignores starts with no steps left
    if again:
        yield about(label, "run.resumed", steps=again)


def torn(label: str, run: Series) -> Iterator[Sentence]:
    """Report an unfinished last line that was left out."""
    if run.torn:
        yield about(label, "torn", last=int(run.step[-1]))


def summary(study: Study) -> Table:
    keys = {key: key for key in ("first", "last", "p5", "median", "p95")}
    rows = [
        (row, cells([each.loss for each in study.numbers], key, lambda x: significant(x, 4)))
        for row, key in {**keys, "tail": "last_tenth_mean"}.items()
    ]
    return grid_of("losses", study.labels, rows, study.metrics("loss"))


def own_every(study: Study) -> Iterator[Table]:
    for i, (label, run) in enumerate(zip(study.labels, study.runs, strict=True)):
        at = np.flatnonzero(run.step % STRIDE == 0)
        if at.size:
            rows = cells_of([[f"{run.step[k]:,}", f"{run.loss[k]:.8g}"] for k in at])
            caption = words("caption.every_one", a=label, stride=STRIDE)
            titles = [*head("step"), same("loss")]
            yield Table(caption, titles, rows, study.metrics("step, loss", i), long=True)


def loss_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """Sentences on the recorded steps, the non-finite losses, and the final losses."""
    steps = pick(pair.a.loss, "", from_a="first_step", to_a="last_step")
    steps |= pick(pair.b.loss, "", from_b="first_step", to_b="last_step")
    if (steps["from_a"], steps["to_a"]) != (steps["from_b"], steps["to_b"]):
        rest = phrase("loss.lengths_rest" if pair.matched else "term.nothing")
        yield say("loss.lengths", rest=rest, **steps, **pair.names)
    for each in pair.both:
        yield from not_finite(each.label, each.loss)
    yield from _loss_end(pair.loss_end, pair.a.label, pair.b.label)


def not_finite(label: str, run: Numbers) -> Iterator[Sentence]:
    """Sentences on the steps of one run at which the loss is not finite."""
    if run["not_finite"]:
        numbers = pick(run, "steps", n="not_finite", first="not_finite_first")
        yield about(label, "loss.not_finite", **numbers)


def _loss_end(end: Numbers | None, a: str, b: str) -> Iterator[Sentence]:
    """Final losses of both runs, over the same steps."""
    if end is None:
        return
    steps = pick(end, "", first="first_step", last="last_step")
    numbers = pick(end["a"], "", mean_a="mean", n_a="steps")
    numbers |= pick(end["b"], "", mean_b="mean", n_b="steps") | {"a": a, "b": b}
    if end["whole"]:
        yield say("loss.end", **numbers)
    else:
        yield say("loss.end", "loss.end_common", **numbers, **steps)
    if end["ratio"]:
        name = phrase("term.last_loss") if end["whole"] else words("term.loss_between", **steps)
        yield ratio_sentence("loss.ratio", (name, "higher", "lower"), end["ratio"], a, b)


def run_lines(study: Study, of: Callable[[Run], Float64], styled: bool = False) -> list[Trace]:
    """One line for each run in which a number is known."""
    style = _styles(study) if styled else {}
    return [
        line(same(study.labels[i]), f"run{i}", run.step, of(run), **style.get(i, {}))
        for i, run in enumerate(study.runs)
        if np.isfinite(of(run)).any()
    ]


def _styles(study: Study) -> dict[int, dict[str, Any]]:
    """Line styles of two matched runs, whose lines coincide: one wide and pale, one dashed."""
    matched = [pair.at for pair in study.pairs if pair.matched]
    above = {b for _, b in matched}
    return {a: {"under": True} for a, _ in matched if a not in above} | {
        run: {"dash": "dash"} for run in above
    }


def loss_plot(study: Study) -> Plot:
    """The losses of all runs at every step, and the losses of their held-out pictures."""
    traces = run_lines(study, lambda run: run.loss, styled=True)
    for i, run in enumerate(study.runs):
        if run.validation_loss is not None:
            at = np.isfinite(run.validation_loss)
            label = words("figure.held_out", label=study.labels[i])
            x, y = run.step[at], run.validation_loss[at]
            traces.append(line(label, f"run{i}", x, y, most=x.size, dash="dot"))
    sources = study.metrics("step, loss")
    note = thinned([run.step.size for run in study.runs])
    return plot(
        "loss", "step", "loss", traces, note, sources, log_y=wide([run.loss for run in study.runs])
    )


def every_plot(study: Study) -> Plot | None:
    """The losses of all runs at every 200th step; None if no run has such a step."""
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
    sources = study.metrics("step, loss")
    looks = {"title": words("figure.every", stride=STRIDE), "log_y": wide(values)}
    return plot(
        f"loss-every-{STRIDE}", "step", "loss", traces, "single", sources, key="every", **looks
    )
