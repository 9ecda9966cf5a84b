"""The chapters on cost: time per step and epoch, slow steps and their causes, sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.figures.numbers import seconds, significant
from diptych.files import read_json
from diptych.profiling.resources import attribution
from diptych.report import plots, plots_cost, sentences_cost, statistics
from diptych.report.blocks import Block, Table, grid_of
from diptych.report.catalogue import known as named
from diptych.report.catalogue import phrase, same
from diptych.report.chapters_machine import cells, memory, processor
from diptych.report.chapters_parts import parts
from diptych.report.chapters_setup import told
from diptych.report.pairing import Compared
from diptych.report.subjects import Study
from diptych.report.tables import TIMES
from diptych.report.wording import Sentence, cite, say, words

TIME_ROWS = ("median", "p95", "p99", "max", "max_step", "mean", "data_share", "synced")
TIMED = "step, data_s, compute_s, synced"


def performance(study: Study, pairs: Sequence[Compared]) -> Iterator[Block]:
    """Steps, epochs, parts of a step, slow steps and their causes, memory, processor use."""
    times = [statistics.step_time(run) for run in study.runs]
    yield from _times(study, pairs, times)
    yield from parts(study)
    yield from _slow(study, times)
    yield from _epochs(study, pairs)
    yield from memory(study)
    yield from processor(study)


def _times(
    study: Study, pairs: Sequence[Compared], times: Sequence[dict[str, Any] | None]
) -> Iterator[Block]:
    for pair in pairs:
        said = sentences_cost.ratio_of_times(
            pair.numbers["step_time"], pair.content, pair.a, pair.b
        )
        yield from cite(said, *study.metrics(TIMED, pair.pairing.a, pair.pairing.b))
    for i, numbers in enumerate(times):
        if numbers and (not pairs or len(study.runs) > 2):
            key = f"cost.step.{study.labels[i]}"
            said_of = say(key, "performance", "cost.step", run=study.labels[i],
                          median=numbers["median"], p95=numbers["p95"], max=numbers["max"],
                          step=numbers["max_step"])  # fmt: skip
            yield from cite([said_of], *study.metrics(TIMED, i))
    for figure in (plots.step_times(study), plots.distribution(study)):
        if figure:
            yield figure
    rows = [
        (phrase(f"row.{row}"), cells(times, key, show))
        for row, (_, key, show) in zip(TIME_ROWS, TIMES, strict=True)
    ]
    yield grid_of(phrase("caption.times"), study.labels, rows, study.metrics(TIMED))


def _slow(study: Study, times: Sequence[dict[str, Any] | None]) -> Iterator[Block]:
    for i, numbers in enumerate(times):
        label = study.labels[i]
        known, damaged = attribution(study.folders[i])
        evidence = known["evidence"] if known else []
        told = bool(damaged is not None or (known and evidence and known["by_cause"]))
        said_of = sentences_cost.slow_steps(label, numbers, attributed=told)
        yield from cite(said_of, *study.metrics(TIMED, i))
        if damaged is not None:
            how = (
                _about(label, "damaged", file=damaged)
                if damaged
                else _about(label, "damaged_words")
            )
            yield from cite([how], study.source(i, damaged or "metrics.jsonl", "all"))
        if known and not evidence:
            yield from cite([_about(label, "bare")], *study.metrics(TIMED, i))
        if known and known["by_cause"]:
            yield from _causes(study, i, known)


def _about(label: str, template: str, **numbers: Any) -> Sentence:
    """A sentence of the performance chapter about one run."""
    return say(f"cost.{template.partition('_')[0]}.{label}", "performance", f"cost.{template}",
               run=label, **numbers)  # fmt: skip


def _causes(study: Study, i: int, known: Mapping[str, Any]) -> Iterator[Block]:
    """How many slow steps have a cause, which records are missing, and the causes."""
    label, evidence = study.labels[i], known["evidence"]
    sources = [study.source(i, "metrics.jsonl", "ended, queue_s, data_s, compute_s")]
    sources += [study.source(i, name, "all") for name in ("resources.jsonl", "events.jsonl")
                if (study.folders[i] / name).is_file()]  # fmt: skip
    total, missing = len(known["outliers"]), int(known["unexplained"])
    between = phrase("cost.between" if "ended" in evidence else "term.nothing")
    numbers: dict[str, Any] = {"n": total, "k": known["k"], "between": between}
    if missing == 0:
        said = [_about(label, "outliers_all", **numbers)]
    elif missing == total:
        said = [_about(label, "outliers_none", **numbers)]
    else:
        said = [_about(label, "outliers", known=total - missing, unexplained=missing, **numbers)]
    said += [_about(label, f"lacking_{record}") for record in ("resources", "events")
             if evidence and record not in evidence]  # fmt: skip
    yield from cite(said, *sources)
    rows = [[named("cause", cause), same(f"{each['steps']:,}"), same(seconds(each["excess_s"]))]
            for cause, each in known["by_cause"].items()]  # fmt: skip
    head = [phrase(f"column.{key}") for key in ("cause", "steps", "excess")]
    yield Table(words("caption.outliers", run=label, k=known["k"]), head, rows, tuple(sources))


def _epochs(study: Study, pairs: Sequence[Compared]) -> Iterator[Block]:
    numbers = [statistics.epoch_time(run) for run in study.runs]
    fields = "epoch, data_s, compute_s"
    for pair in pairs:
        said = sentences_cost.epochs(pair.numbers["epoch_time"], pair.a, pair.b)
        yield from cite(said, *study.metrics(fields, pair.pairing.a, pair.pairing.b))
    for i, each in enumerate(numbers):
        if each["complete"] and not pairs:
            own = say(f"cost.epoch.{study.labels[i]}", "performance", "cost.epoch",
                      run=study.labels[i], median=each["median"],
                      n=len(each["complete"]))  # fmt: skip
            yield from cite([own], *study.metrics(fields, i))
    figure = plots.epoch_times(study)
    if figure:
        yield figure
        both = [{row["epoch"]: row["seconds"] for row in each["complete"]} for each in numbers]
        epochs = sorted({epoch for each in both for epoch in each})
        rows = [(same(f"{epoch + 1}"), [seconds(each[epoch]) if epoch in each else None
                                        for each in both]) for epoch in epochs]  # fmt: skip
        caption = phrase("caption.epochs")
        yield grid_of(caption, study.labels, rows, study.metrics(fields), long=len(rows) > 12)


def sampling(study: Study) -> Iterator[Block]:
    """Seconds of every sampled batch, and of an image in every sample folder."""
    batches = [r for r in study.found.of("batches") if r.content.get("seconds")]
    for record in batches:
        said = _batches(study.label_of(record), record.content)
        yield from cite(said, study.of_record(record, "seconds"))
    if batches:
        yield plots_cost.batches(study, batches)
        card = batches[0].content
        caption = words("caption.batches", batch=card.get("batch"), solver=card.get("solver"),
                        steps=card.get("steps"))  # fmt: skip
        longest = max(len(r.content["seconds"]) for r in batches)
        rows = [
            (same(str(k + 1)),
             [significant(r.content["seconds"][k], 3) if k < len(r.content["seconds"]) else None
              for r in batches])
            for k in range(longest)
        ]  # fmt: skip
        sources = tuple(study.of_record(r, "seconds") for r in batches)
        yield grid_of(caption, [study.label_of(r) for r in batches], rows, sources,
                      long=longest > 12)  # fmt: skip
    yield from _sampled(study)


def _batches(label: str, content: Mapping[str, Any]) -> Iterator[Sentence]:
    times = [float(value) for value in content["seconds"]]
    if len(times) > 1:
        yield say(f"cost.batches.{label}", "sampling", "cost.batches", run=label, first=times[0],
                  rest=float(np.median(times[1:])), n=len(times) - 1)  # fmt: skip


def _sampled(study: Study) -> Iterator[Table]:
    records = study.found.pictures()[:6]
    if not records:
        return
    cards = [read_json(record.path) for record in records]
    keys = ("solver", "steps", "eta", "spacing", "clip", "seed", "num", "batch", "weights",
            "network_calls")  # fmt: skip
    rows = [(phrase(f"card.{key}"), [told(card.get(key)) for card in cards])
            for key in keys]  # fmt: skip
    spent = [card.get("seconds_per_image") for card in cards]
    rows.append((phrase("row.seconds_image"), [None if s is None else seconds(s) for s in spent]))
    names = [study.title_of(record) for record in records]
    sources = tuple(study.of_record(record, "seconds_per_image, " + ", ".join(keys))
                    for record in records)  # fmt: skip
    yield grid_of(phrase("caption.sampled"), names, rows, sources)
