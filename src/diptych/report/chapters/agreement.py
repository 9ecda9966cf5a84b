"""Chapter: agreement. What the runs share, how far their losses are apart, the ladder of checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.figures.numbers import significant
from diptych.report.chapters.setup import yes_no
from diptych.report.document import EMPTY, NONE, Block, Plot, Table, Trace, head, plot
from diptych.report.numbers.losses import (
    ROUNDING,
    STRIDE,
    Numbers,
    common_steps,
    relative_difference,
)
from diptych.report.numbers.pair import PairNumbers
from diptych.report.render.traces import line, thinned
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record
from diptych.report.text.catalogue import Text, known, phrase, same
from diptych.report.text.template import Sentence, Source, cite, joined, pick, say, words
from diptych.runs.reader import Run

# Losses of the first step that are this close come of the same numbers: a few roundings; a float32
# sum of all values in another order. Other weights, images or noise differ by far more.
ROUNDINGS, SUMMED_APART = 50 * ROUNDING, 1e-4
CHAOTIC = 1e-3  # the median difference of the last tenth, where training began alike


def chapter(study: Study) -> Iterator[Block]:
    """Weights, order and noise; differences of the losses; the ladder; free training."""
    for pair in study.pairs:
        files = _files(study, pair, "environment.json") + _files(study, pair, "config.yaml")
        yield from cite(match_sentences(pair), *files)
        yield _shared(study, pair, files)
    for pair in study.pairs:
        yield from _difference(study, pair)
    figure = _plot(study)
    if figure:
        yield figure
    for pair in study.pairs:
        yield from _tables(study, pair)
    for record in study.found.of("ladder"):
        yield from _ladder(study, record)
    for record in study.found.of("training"):
        yield _free(study, record)


def _files(study: Study, pair: PairNumbers, file: str) -> tuple[Source, ...]:
    return tuple(study.source(i, file, "all") for i in pair.at)


def match_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """Whether the runs match, and whether their machines were set up alike."""
    runs = pair.names
    if pair.matched:
        data, seed = str(pair.a.run.environment.get("dataset_sha256")), pair.a.run.config.seed
        yield say("matched", seed=seed, data=data, **runs)
    elif pair.reasons:
        reasons = joined(pair.reasons)
        yield say("unmatched", "unmatched.reasons", reasons=reasons, **runs)
    else:
        yield say("unmatched", "unmatched.asked", **runs)
    if pair.machine_differences:
        keys = ", ".join(pair.machine_differences)
        yield say("machines", keys=keys, **runs)


def _shared(study: Study, pair: PairNumbers, sources: tuple[Source, ...]) -> Table:
    a, b = pair.a.run, pair.b.run
    seeds = a.config.seed == b.config.seed
    batch = seeds and a.config.train.batch_size == b.config.train.batch_size
    shape = _equal(a, b, "data", "image_size", "channels")
    plan = seeds and shape and a.config.model == b.config.model
    order = batch and pair.dataset_equal is True and _equal(a, b, "data", "random_flip")
    host = {a.config.train.noise, b.config.train.noise} == {"host"} and batch and shape
    noise = host and a.config.diffusion.timesteps == b.config.diffusion.timesteps
    none = a.config.model.dropout == b.config.model.dropout == 0
    alike = host and a.config.model == b.config.model
    masks = "no_dropout" if none else "noise" if alike else "dropout_not"
    facts = [
        ("weights", plan, "keyed" if plan else "keyed_not"),
        ("order", order, "order" if order else "order_not"),
        ("noise", noise, "noise" if noise else "noise_not"),
        ("dropout", masks != "dropout_not", masks),
    ]
    titles = [EMPTY, *head("equal", "why")]
    rows = [
        [phrase(f"row.{key}"), yes_no(value), phrase(f"cell.{why}")] for key, value, why in facts
    ]
    return Table(words("caption.shared", **pair.names), titles, rows, sources)


def _equal(a: Run, b: Run, section: str, *keys: str) -> bool:
    """Whether these settings of a section of the config are equal."""
    one, other = getattr(a.config, section), getattr(b.config, section)
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _difference(study: Study, pair: PairNumbers) -> Iterator[Sentence]:
    numbers = pair.difference
    if not numbers:
        return
    sources = study.metrics("step, loss, grad_norm", *pair.at)
    gaps = first_gaps(pair) if numbers["first_step"] == 1 else None
    if gaps:
        yield from cite([_first(pair, *gaps)], *sources)
    yield from cite(difference_sentences(numbers, pair.a.label, pair.b.label), *sources)
    last = numbers["loss"]["median_relative_last_tenth"] if numbers["loss"] else 0.0
    if gaps and gaps[0] <= SUMMED_APART and last > CHAOTIC:
        said = say("align.chaos", **pair.names)
        yield from cite([said], *sources)


def first_gaps(pair: PairNumbers) -> tuple[float, float] | None:
    """The relative differences of loss and gradient norm at step 1; None: no finite loss."""
    a, b = pair.a.run, pair.b.run
    loss = float(relative_difference(a.loss[:1], b.loss[:1])[0])
    gradient = float(relative_difference(a.grad_norm[:1], b.grad_norm[:1])[0])
    return (loss, gradient) if math.isfinite(loss) else None


def _first(pair: PairNumbers, loss: float, gradient: float) -> Sentence:
    """Whether both began with the same numbers: before an update, rounding alone may differ."""
    numbers: dict[str, Any] = {"a": pair.a.label, "b": pair.b.label, "step": 1, "relative": loss}
    if loss <= ROUNDINGS:
        template, numbers["rounding"] = "align.first", ROUNDING
    elif loss <= SUMMED_APART:
        template, numbers["gradients"] = "align.first_sum", phrase("term.nothing")
        if math.isfinite(gradient):
            numbers["gradients"] = words("align.gradients", relative=gradient)
    else:
        template = "align.first_apart"
    return say("align.first", template, **numbers)


def _tables(study: Study, pair: PairNumbers) -> Iterator[Table]:
    numbers = pair.difference
    if not numbers or not numbers["loss"]:
        return
    sources = study.metrics("step, loss", *pair.at)
    titles = head("difference_above", "steps", "first")
    rows = [
        [
            same(f"{row['limit']:.0e}".replace("e-0", "e-")),
            same(f"{row['steps']:,}"),
            same(f"{row['first']:,}") if row["first"] else NONE,
        ]
        for row in numbers["loss"]["above"]
    ]
    yield Table(words("caption.above", **pair.names), titles, rows, sources)
    body = [
        [
            same(f"{row['step']:,}"),
            *(NONE if row[run] is None else same(f"{row[run]:.8g}") for run in "ab"),
            NONE if row["relative"] is None else same(significant(row["relative"])),
        ]
        for row in numbers["every_200"]
    ]
    if body:
        titles = [*head("step"), same(pair.a.label), same(pair.b.label), *head("relative")]
        caption = words("caption.every", **pair.names, stride=STRIDE)
        yield Table(caption, titles, body, sources, long=True)


@dataclass(frozen=True)
class LadderCounts:
    """How many rungs passed, how many planted faults were caught, and the first rung that fails."""

    rungs: int
    passed: int
    planted: int
    caught: int
    failed: str


def ladder_counts(content: Mapping[str, Any]) -> LadderCounts:
    """The counts of align.json."""
    rungs, planted = content.get("rungs") or [], content.get("mutations") or []
    failed = (content.get("first_failure") or {}).get("rung")
    failed = failed or next((r["rung"] for r in rungs if r["verdict"] == "fail"), "?")
    return LadderCounts(
        len(rungs),
        sum(rung["verdict"] == "pass" for rung in rungs),
        len(planted),
        sum(m["verdict"] == "pass" for m in planted),
        str(failed),
    )


def _ladder(study: Study, record: Record) -> Iterator[Block]:
    content, counts = record.content, ladder_counts(record.content)
    rungs, passed = content["rungs"], {"rungs": counts.rungs, "passed": counts.passed}
    source = study.of_record(record, "rungs, mutations, passed, first_failure, config_identity")
    if not content["passed"]:
        said = say("align.ladder", "align.ladder_fail", rung=counts.failed)
    elif not counts.planted:
        said = say("align.ladder", "align.ladder_unplanted", **passed)
    else:
        said = say(
            "align.ladder",
            "align.ladder_pass",
            **passed,
            caught=counts.caught,
            planted=counts.planted,
        )
    yield from cite([said], source)
    identity = str(content.get("config_identity"))
    if not study.trained_with(identity):
        preset = str(content.get("preset"))
        other = say("align.ladder_other", preset=preset, identity=identity)
        yield from cite([other], source)
    if any(rung.get("margin") is not None for rung in rungs):
        yield from cite([say("align.how")], source)
    titles = head("rung", "verdict", "error", "floor", "margin")
    body = [
        [
            same(str(rung.get("rung"))),
            known("verdict", str(rung.get("verdict"))),
            *(_short(rung.get(key)) for key in ("error", "floor", "margin")),
        ]
        for rung in rungs
    ]
    caption = words("caption.ladder", preset=str(content.get("preset")))
    yield Table(caption, titles, body, (source,))


def _short(value: Any) -> Text:
    return same(significant(value)) if isinstance(value, (int, float)) else NONE


def _free(study: Study, record: Record) -> Sentence:
    content, test = record.content, record.content["overall"]
    verdict = phrase("align.equivalent" if test["equivalent"] else "align.not_equivalent")
    seeds = content["seeds"]
    said = say(
        "align.training",
        steps=content["steps"],
        seeds=len(seeds) if isinstance(seeds, list) else seeds,
        margin=content["margin"],
        verdict=verdict,
        **pick(test, "ratio low high"),
    )
    return cite([said], study.of_record(record, "overall, seeds, steps, margin"))[0]


def difference_sentences(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """How far losses and gradient norms are apart, step by step."""
    loss, runs = numbers["loss"], {"a": a, "b": b}
    if loss is None:
        yield _apart("difference", "none", n=numbers["steps"], **runs)
        return
    yield _largest("difference", "losses", loss, a, b)
    if 0 < loss["equal"] < loss["compared"]:
        yield _apart("difference.equal", "equal", equal=loss["equal"], n=loss["compared"], **runs)
    if loss["tenth_steps"] > 1 and loss["max_relative"] > 0:
        yield _apart(
            "difference.growth",
            "growth",
            n=loss["tenth_steps"],
            first=loss["median_relative_first_tenth"],
            last=loss["median_relative_last_tenth"],
            **runs,
        )
    if numbers["grad_norm"] is not None:
        yield _largest("difference.grad_norm", "grad_norms", numbers["grad_norm"], a, b)
    if not numbers["every_200"]:
        ends = {"first": numbers["first_step"], "last": numbers["last_step"]}
        yield _apart("difference.every_200", "every_200", stride=STRIDE, **ends, **runs)


def _apart(key: str, template: str, **numbers: Any) -> Sentence:
    return say(key, f"difference.{template}", **numbers)


def _largest(key: str, what: str, numbers: Numbers, a: str, b: str) -> Sentence:
    named = {"what": phrase(f"term.{what}"), "a": a, "b": b}
    most = {"max": numbers["max_relative"], "step": numbers["max_relative_step"]}
    if numbers["compared"] == 1:
        return _apart(key, "one", **named, **most)
    if numbers["max_relative"] == 0:
        return _apart(key, "same", n=numbers["compared"], **named)
    median = numbers["median_relative"]
    return _apart(key, "largest", n=numbers["compared"], median=median, **named, **most)


def _plot(study: Study) -> Plot | None:
    """|a - b| / max(|a|, |b|) of the losses of matched runs; None where there is none."""
    traces, sizes, used = [], [], set()
    pairs = [pair for pair in study.pairs if pair.matched]
    for pair in pairs:
        a, b = pair.a.run, pair.b.run
        common = common_steps(a, b)
        if common is None:
            continue
        step = a.step[common[0]]
        relative = relative_difference(a.loss[common[0]], b.loss[common[1]])
        relative = np.where(relative > 0, relative, np.nan)  # a log scale has no place for 0
        if np.isfinite(relative).any():
            label = f"{pair.a.label} / {pair.b.label}"
            colour = "ink" if len(pairs) == 1 else f"run{pair.at[1]}"
            traces.append(line(same(label), colour, step, relative))
            sizes.append(step.size)
            used |= {*pair.at}
    if not traces:
        return None
    ends = [min(t.x[0] for t in traces), max(t.x[-1] for t in traces)]
    rounding = Trace("line", phrase("note.rounding"), "soft", ends, [ROUNDING] * 2, dash="dash")
    return plot(
        "difference",
        "step",
        "difference",
        [*traces, rounding],
        thinned(sizes),
        study.metrics("step, loss", *sorted(used)),
        log_y=True,
    )
