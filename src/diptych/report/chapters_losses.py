"""The chapter on losses: the curves of all runs, how far they came, how low they end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diptych.figures.numbers import significant
from diptych.report import plots, sentences
from diptych.report.blocks import Block, Table, grid_of
from diptych.report.catalogue import phrase, same
from diptych.report.chapters_setup import planned
from diptych.report.pairing import Compared
from diptych.report.statistics import STRIDE, loss_summary
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, cite, say, words
from diptych.runs.reader import Run


def losses(study: Study, pairs: Sequence[Compared]) -> Iterator[Block]:
    """The curves of all runs, how far they came, and how low they end."""
    yield plots.loss(study)
    every = plots.every_200(study)
    if every:
        yield every
    for i, run in enumerate(study.runs):
        yield from cite(_state(study.labels[i], run), *study.metrics("step", i),
                        study.source(i, "config.yaml", "train.epochs, train.steps"),
                        study.source(i, "environment.json", "starts, dataset_images"))  # fmt: skip
        yield from cite(sentences.not_finite(study.labels[i], loss_summary(run)),
                        *study.metrics("loss", i))  # fmt: skip
    for pair in pairs:
        matched = pair.pairing.matched
        said = sentences.loss(pair.numbers["loss"], matched, pair.a, pair.b)
        kept = [s for s in said if not s.key.startswith("loss.not_finite")]
        yield from cite(kept, *study.metrics("loss", pair.pairing.a, pair.pairing.b))
    yield _summary(study)
    if not pairs:
        yield from _own_every(study)


def _state(label: str, run: Run) -> Iterator[Sentence]:
    """Whether the run is whole: its end, its gaps, its resumes."""
    last, end = int(run.step[-1]), planned(run)
    if run.torn:
        yield say(f"torn.{label}", "losses", "torn", run=label, last=last)
    if end is not None:
        if last < end:
            yield say(f"run.end.{label}", "losses", "run.unfinished", run=label, last=last,
                      planned=end)  # fmt: skip
        else:
            yield say(f"run.end.{label}", "losses", "run.finished", run=label, planned=end)
    if run.gaps:
        missing = sum(high - low + 1 for low, high in run.gaps)
        yield say(f"run.gaps.{label}", "losses", "run.gaps", run=label, n=missing,
                  gaps=len(run.gaps), first=run.gaps[0][0], last=run.gaps[0][1])  # fmt: skip
    if run.repeated:
        yield say(f"run.repeated.{label}", "losses", "run.repeated", run=label, n=run.repeated)
    again = [step for step in run.starts[1:] if step < last]  # a start with nothing left is none
    if again:
        yield say(f"run.resumed.{label}", "losses", "run.resumed", run=label, steps=again)


def _summary(study: Study) -> Table:
    keys = (("first", "first"), ("last", "last"), ("p5", "p5"), ("median", "median"),
            ("p95", "p95"), ("tail", "last_tenth_mean"))  # fmt: skip
    numbers = [loss_summary(run) for run in study.runs]
    rows = [
        (phrase(f"row.{row}"),
         [None if each[key] is None else significant(each[key], 4) for each in numbers])
        for row, key in keys
    ]  # fmt: skip
    return grid_of(phrase("caption.losses"), study.labels, rows, study.metrics("loss"))


def _own_every(study: Study) -> Iterator[Table]:
    for i, run in enumerate(study.runs):
        at = [k for k in range(run.step.size) if run.step[k] % STRIDE == 0]
        if at:
            rows = [[same(f"{run.step[k]:,}"), same(f"{run.loss[k]:.8g}")] for k in at]
            caption = words("caption.every_one", a=study.labels[i], stride=STRIDE)
            head = [phrase("column.step"), same("loss")]
            yield Table(caption, head, rows, study.metrics("step, loss", i), long=True)
