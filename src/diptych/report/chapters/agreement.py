"""Chapter: agreement. Inputs the runs share, differences of their losses, the ladder of checks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from diptych.figures.numbers import significant
from diptych.pages.catalogue import known, phrase, same
from diptych.pages.document import EMPTY, NONE, Block, Plot, Table, Trace, cells_of, head, plot
from diptych.pages.template import Numbers, Sentence, Source, cite, joined, pick, say, words
from diptych.pages.traces import line, thinned
from diptych.report.chapters.setup import yes_no
from diptych.report.numbers.losses import ROUNDING, STRIDE, common_steps, relative_difference
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record
from diptych.runs.reader import Run

# First-step losses this close come from the same numbers: a few roundings, or a float32 sum of all
# values in another order. Other weights, images or noise differ by far more.
ROUNDINGS, SUMMED_APART = 50 * ROUNDING, 1e-4
NUMBERS = ("error", "floor", "margin")  # of a rung
CHAOTIC = 1e-3  # median difference of the last tenth, if training began alike


def chapter(study: Study) -> Iterator[Block]:
    """Weights, order and noise; differences of the losses; the ladder; free training."""
    for pair in study.pairs:
        names = ("environment.json", "config.yaml")
        files = tuple(study.source(i, file, "all") for file in names for i in pair.at)
        yield from cite(match_sentences(pair), *files)
        yield _shared(study, pair, files)
    for pair in study.pairs:
        yield from _difference(study, pair)
    figure = difference_plot(study)
    if figure:
        yield figure
    for pair in study.pairs:
        yield from difference_tables(study, pair)
    for record in study.found.of("ladder"):
        yield from _ladder(study, record)
    for record in study.found.of("training"):
        yield _free(study, record)


def match_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """Sentences on the match of the runs and of their machines' setup."""
    if pair.matched:
        data, seed = str(pair.a.run.environment.get("dataset_sha256")), pair.a.run.config.seed
        yield say("matched", seed=seed, data=data, **pair.names)
    elif pair.reasons:
        yield say("unmatched", "unmatched.reasons", reasons=joined(pair.reasons), **pair.names)
    else:
        yield say("unmatched", "unmatched.asked", **pair.names)
    if pair.machine_differences:
        yield say("machines", keys=", ".join(pair.machine_differences), **pair.names)
    worlds = {f"world_{run}": each.run.world for run, each in zip("ab", pair.both, strict=True)}
    if len(set(worlds.values())) > 1:
        yield say("worlds", **worlds, **pair.names)


def _shared(study: Study, pair: PairNumbers, sources: tuple[Source, ...]) -> Table:
    a, b = pair.a.run, pair.b.run
    seeds = a.config.seed == b.config.seed
    batch = seeds and a.config.train.batch_size == b.config.train.batch_size
    shape = _equal(a, b, "data", "image_size", "channels")
    plan = seeds and shape and a.config.model == b.config.model
    order = batch and pair.dataset_equal is True and _equal(a, b, "data", "random_flip")
    drawn = {a.config.train.noise, b.config.train.noise}
    host = drawn in ({"host"}, {"keyed"}) and batch and shape
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
    """Return True if these settings of a config section are equal."""
    one, other = getattr(a.config, section), getattr(b.config, section)
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _difference(study: Study, pair: PairNumbers) -> Iterator[Sentence]:
    numbers = pair.difference
    if not numbers:
        return
    sources = study.metrics("step, loss, grad_norm", *pair.at)
    gaps = first_gaps(pair)
    if gaps:
        yield _first(pair, *gaps).by(*sources)
    yield from cite(difference_sentences(numbers, pair.a.label, pair.b.label), *sources)
    last = numbers["loss"]["median_relative_last_tenth"] if numbers["loss"] else 0.0
    if gaps and gaps[0] <= SUMMED_APART and last > CHAOTIC:
        yield say("align.chaos", **pair.names).by(*sources)


def first_gaps(pair: PairNumbers) -> tuple[float, float] | None:
    """The relative differences of loss and gradient norm at step 1; None if unknown."""
    if not pair.difference or pair.difference["first_step"] != 1:
        return None
    a, b = pair.a.run, pair.b.run
    loss = float(relative_difference(a.loss[:1], b.loss[:1])[0])
    gradient = float(relative_difference(a.grad_norm[:1], b.grad_norm[:1])[0])
    return (loss, gradient) if math.isfinite(loss) else None


def _first(pair: PairNumbers, loss: float, gradient: float) -> Sentence:
    """Compare the first step of both: before an update, only rounding may differ."""
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


def difference_tables(study: Study, pair: PairNumbers) -> Iterator[Table]:
    numbers = pair.difference
    if not numbers or not numbers["loss"]:
        return
    sources = study.metrics("step, loss", *pair.at)
    rows = [
        [
            f"{row['limit']:.0e}".replace("e-0", "e-"),
            f"{row['steps']:,}",
            None if row["first"] is None else f"{row['first']:,}",
        ]
        for row in numbers["loss"]["above"]
    ]
    titles = head("difference_above", "steps", "first")
    yield Table(words("caption.above", **pair.names), titles, cells_of(rows), sources)
    rows = [
        [
            f"{row['step']:,}",
            *(None if row[run] is None else f"{row[run]:.8g}" for run in "ab"),
            None if row["relative"] is None else significant(row["relative"]),
        ]
        for row in numbers["every_200"]
    ]
    if rows:
        titles = [*head("step"), same(pair.a.label), same(pair.b.label), *head("relative")]
        caption = words("caption.every", stride=STRIDE, **pair.names)
        yield Table(caption, titles, cells_of(rows), sources, long=True)


def ladder_counts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Counts from align.json: rungs, passed, planted, caught, and the first rung that fails."""
    rungs, planted = content["rungs"], content["mutations"] or []
    failed = (content["first_failure"] or {}).get("rung")
    return {
        "rungs": len(rungs),
        "passed": sum(rung["verdict"] == "pass" for rung in rungs),
        "planted": len(planted),
        "caught": sum(fault["verdict"] == "pass" for fault in planted),
        "failed": failed or next((r["rung"] for r in rungs if r["verdict"] == "fail"), "?"),
    }


def _ladder(study: Study, record: Record) -> Iterator[Block]:
    content, counts = record.content, ladder_counts(record.content)
    rungs, preset, identity = content["rungs"], content["preset"], content["config_identity"]
    source = study.of_record(record, "rungs, mutations, passed, first_failure, config_identity")
    if not content["passed"]:
        said = say("align.ladder", "align.ladder_fail", rung=counts["failed"])
    elif not counts["planted"]:
        said = say("align.ladder", "align.ladder_unplanted", **pick(counts, "rungs passed"))
    else:
        numbers = pick(counts, "rungs passed caught planted")
        said = say("align.ladder", "align.ladder_pass", **numbers)
    yield said.by(source)
    if not study.trained_with(identity):
        yield say("align.ladder_other", preset=preset, identity=identity).by(source)
    if any(rung["margin"] is not None for rung in rungs):
        yield say("align.how").by(source)
    body = [
        [
            same(rung["rung"]),
            known("verdict", rung["verdict"]),
            *(NONE if rung[k] is None else same(significant(rung[k])) for k in NUMBERS),
        ]
        for rung in rungs
    ]
    titles = head("rung", "verdict", *NUMBERS)
    yield Table(words("caption.ladder", preset=preset), titles, body, (source,))


def _free(study: Study, record: Record) -> Sentence:
    content, seeds = record.content, record.content["seeds"]
    numbers = pick(content["overall"], "ratio low high") | pick(content, "steps margin")
    key = "align.equivalent" if content["overall"]["equivalent"] else "align.not_equivalent"
    numbers |= {"seeds": len(seeds) if isinstance(seeds, list) else seeds, "verdict": phrase(key)}
    source = study.of_record(record, "overall, seeds, steps, margin")
    return say("align.training", **numbers).by(source)


def difference_sentences(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """Sentences on the step-by-step differences of losses and gradient norms."""
    loss, runs = numbers["loss"], {"a": a, "b": b}
    if loss is None:
        yield say("difference", "difference.none", n=numbers["steps"], **runs)
        return
    yield _largest("difference", "losses", loss, a, b)
    if 0 < loss["equal"] < loss["compared"]:
        yield say("difference.equal", **pick(loss, "equal", n="compared"), **runs)
    if loss["tenth_steps"] > 1 and loss["max_relative"] > 0:
        ends = {"first": "median_relative_first_tenth", "last": "median_relative_last_tenth"}
        yield say("difference.growth", **pick(loss, "", n="tenth_steps", **ends), **runs)
    if numbers["grad_norm"] is not None:
        yield _largest("difference.grad_norm", "grad_norms", numbers["grad_norm"], a, b)
    if not numbers["every_200"]:
        ends = pick(numbers, "", first="first_step", last="last_step")
        yield say("difference.every_200", stride=STRIDE, **ends, **runs)


def _largest(key: str, what: str, numbers: Numbers, a: str, b: str) -> Sentence:
    named = {"what": phrase(f"term.{what}"), "a": a, "b": b}
    most = pick(numbers, "", max="max_relative", step="max_relative_step")
    if numbers["compared"] == 1:
        return say(key, "difference.one", **named, **most)
    if numbers["max_relative"] == 0:
        return say(key, "difference.same", n=numbers["compared"], **named)
    rest = pick(numbers, "", n="compared", median="median_relative")
    return say(key, "difference.largest", **rest, **named, **most)


def difference_plot(study: Study) -> Plot | None:
    """|a - b| / max(|a|, |b|) of losses that are compared step by step; None without such."""
    traces, sizes, used = [], [], set()
    pairs = [pair for pair in study.pairs if pair.difference]
    for pair in pairs:
        a, b = pair.a.run, pair.b.run
        common = common_steps(a, b)
        if common is None:
            continue
        step = a.step[common[0]]
        relative = relative_difference(a.loss[common[0]], b.loss[common[1]])
        relative = np.where(relative > 0, relative, np.nan)  # a log scale cannot show 0
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
    sources = study.metrics("step, loss", *sorted(used))
    note = thinned(sizes)
    return plot("difference", "step", "difference", [*traces, rounding], note, sources, log_y=True)
