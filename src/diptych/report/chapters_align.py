"""The chapter on agreement: what the runs share, how far their losses are apart, the ladder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from diptych.figures.numbers import significant
from diptych.report import plots, sentences
from diptych.report.blocks import NONE, Block, Table
from diptych.report.catalogue import Text, known, phrase, same
from diptych.report.chapters_setup import yes_no
from diptych.report.figures import ROUNDING
from diptych.report.gather import Record
from diptych.report.pairing import Compared
from diptych.report.statistics import STRIDE, relative_difference
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, Source, cite, say, words
from diptych.runs.reader import Run

# Losses of the first step that are this close come of the same numbers: a few roundings; a float32
# sum of all values in another order. Other weights, images or noise differ by far more.
ROUNDINGS, SUMMED_APART = 50 * ROUNDING, 1e-4
CHAOTIC = 1e-3  # the median difference of the last tenth, where training began alike


def alignment(study: Study, pairs: Sequence[Compared]) -> Iterator[Block]:
    """Weights, order and noise; differences of the losses; the ladder; free training."""
    for pair in pairs:
        files = _files(study, pair, "environment.json", "all") + _files(
            study, pair, "config.yaml", "all"
        )
        yield from cite(sentences.what(_calm(pair), pair.a, pair.b), *files)
        yield _shared(study, pair, files)
    for pair in pairs:
        yield from _difference(study, pair)
    figure = plots.difference(study, [pair.pairing for pair in pairs if pair.pairing.matched])
    if figure:
        yield figure
    for pair in pairs:
        yield from _tables(study, pair)
    for record in study.found.of("ladder"):
        yield from _ladder(study, record)
    for record in study.found.of("training"):
        yield _free(study, record)


def _files(study: Study, pair: Compared, file: str, fields: str) -> tuple[Source, ...]:
    return tuple(study.source(i, file, fields) for i in (pair.pairing.a, pair.pairing.b))


def _calm(pair: Compared) -> dict[str, Any]:
    """The content without torn lines: those stand in the chapter of the losses."""
    runs = {key: {**run, "torn_last_line": False} for key, run in pair.content["runs"].items()}
    return {**pair.content, "runs": runs}


def _shared(study: Study, pair: Compared, sources: tuple[Source, ...]) -> Table:
    a, b = study.runs[pair.pairing.a], study.runs[pair.pairing.b]
    seeds = a.config.seed == b.config.seed
    batch = seeds and a.config.train.batch_size == b.config.train.batch_size
    shape = _equal(a, b, "data", "image_size", "channels")
    plan = seeds and shape and a.config.model == b.config.model
    order = batch and pair.content["dataset_equal"] is True and _equal(a, b, "data", "random_flip")
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
    head = [same(""), phrase("column.equal"), phrase("column.why")]
    rows = [[phrase(f"row.{key}"), yes_no(value), phrase(f"cell.{why}")]
            for key, value, why in facts]  # fmt: skip
    return Table(words("caption.shared", a=pair.a, b=pair.b), head, rows, sources)


def _equal(a: Run, b: Run, section: str, *keys: str) -> bool:
    """Whether these settings of a section of the config are equal."""
    one, other = getattr(a.config, section), getattr(b.config, section)
    return all(getattr(one, key) == getattr(other, key) for key in keys)


def _difference(study: Study, pair: Compared) -> Iterator[Sentence]:
    numbers = pair.numbers["difference"]
    if not numbers:
        return
    sources = study.metrics("step, loss, grad_norm", pair.pairing.a, pair.pairing.b)
    gaps = _first_gaps(study, pair) if numbers["first_step"] == 1 else None
    if gaps:
        yield from cite([_first(pair, *gaps)], *sources)
    yield from cite(sentences.difference(numbers, pair.a, pair.b), *sources)
    last = numbers["loss"]["median_relative_last_tenth"] if numbers["loss"] else 0.0
    if gaps and gaps[0] <= SUMMED_APART and last > CHAOTIC:
        said = say("align.chaos", "alignment", "align.chaos", a=pair.a, b=pair.b)
        yield from cite([said], *sources)


def _first_gaps(study: Study, pair: Compared) -> tuple[float, float] | None:
    """The relative differences of loss and gradient norm at step 1; None: no finite loss."""
    a, b = (study.runs[i] for i in (pair.pairing.a, pair.pairing.b))
    loss = float(relative_difference(a.loss[:1], b.loss[:1])[0])
    gradient = float(relative_difference(a.grad_norm[:1], b.grad_norm[:1])[0])
    return (loss, gradient) if math.isfinite(loss) else None


def _first(pair: Compared, loss: float, gradient: float) -> Sentence:
    """Whether both began with the same numbers: before an update, rounding alone may differ."""
    numbers: dict[str, Any] = {"a": pair.a, "b": pair.b, "step": 1, "relative": loss}
    if loss <= ROUNDINGS:
        template, numbers["rounding"] = "align.first", ROUNDING
    elif loss <= SUMMED_APART:
        template, numbers["gradients"] = "align.first_sum", phrase("term.nothing")
        if math.isfinite(gradient):
            numbers["gradients"] = words("align.gradients", relative=gradient)
    else:
        template = "align.first_apart"
    return say("align.first", "alignment", template, **numbers)


def _tables(study: Study, pair: Compared) -> Iterator[Table]:
    numbers = pair.numbers["difference"]
    if not numbers or not numbers["loss"]:
        return
    sources = study.metrics("step, loss", pair.pairing.a, pair.pairing.b)
    head = [phrase(f"column.{key}") for key in ("difference_above", "steps", "first")]
    rows = [
        [same(f"{row['limit']:.0e}".replace("e-0", "e-")), same(f"{row['steps']:,}"),
         same(f"{row['first']:,}") if row["first"] else NONE]
        for row in numbers["loss"]["above"]
    ]  # fmt: skip
    yield Table(words("caption.above", a=pair.a, b=pair.b), head, rows, sources)
    body = [
        [same(f"{row['step']:,}"),
         *(NONE if row[run] is None else same(f"{row[run]:.8g}") for run in "ab"),
         NONE if row["relative"] is None else same(significant(row["relative"]))]
        for row in numbers["every_200"]
    ]  # fmt: skip
    if body:
        head = [phrase("column.step"), same(pair.a), same(pair.b), phrase("column.relative")]
        caption = words("caption.every", a=pair.a, b=pair.b, stride=STRIDE)
        yield Table(caption, head, body, sources, long=True)


def _ladder(study: Study, record: Record) -> Iterator[Block]:
    content = record.content
    rungs = content.get("rungs") or []
    source = study.of_record(record, "rungs, mutations, passed, first_failure, config_identity")
    planted = content.get("mutations") or []
    passed = sum(rung.get("verdict") == "pass" for rung in rungs)
    if content.get("passed") and not planted:
        said = say("align.ladder", "alignment", "align.ladder_unplanted", rungs=len(rungs),
                   passed=passed)  # fmt: skip
    elif content.get("passed"):
        caught = sum(m.get("verdict") == "pass" for m in planted)
        said = say("align.ladder", "alignment", "align.ladder_pass", rungs=len(rungs),
                   passed=passed, caught=caught, planted=len(planted))  # fmt: skip
    else:
        failed = (content.get("first_failure") or {}).get("rung")
        failed = failed or next((r["rung"] for r in rungs if r.get("verdict") == "fail"), "?")
        said = say("align.ladder", "alignment", "align.ladder_fail", rung=str(failed))
    yield from cite([said], source)
    identity = str(content.get("config_identity"))
    if not study.trained_with(identity):
        preset = str(content.get("preset"))
        other = say("align.ladder_other", "alignment", "align.ladder_other", preset=preset,
                    identity=identity)  # fmt: skip
        yield from cite([other], source)
    if any(rung.get("margin") is not None for rung in rungs):
        yield from cite([say("align.how", "alignment", "align.how")], source)
    head = [phrase(f"column.{key}") for key in ("rung", "verdict", "error", "floor", "margin")]
    body = [
        [same(str(rung.get("rung"))), known("verdict", str(rung.get("verdict"))),
         *(_short(rung.get(key)) for key in ("error", "floor", "margin"))]
        for rung in rungs
    ]  # fmt: skip
    caption = words("caption.ladder", preset=str(content.get("preset")))
    yield Table(caption, head, body, (source,))


def _short(value: Any) -> Text:
    return same(significant(value)) if isinstance(value, (int, float)) else NONE


def _free(study: Study, record: Record) -> Sentence:
    content, test = record.content, record.content["overall"]
    verdict = phrase("align.equivalent" if test["equivalent"] else "align.not_equivalent")
    seeds = content["seeds"]
    said = say("align.training", "alignment", "align.training", steps=content["steps"],
               seeds=len(seeds) if isinstance(seeds, list) else seeds, ratio=test["ratio"],
               low=test["low"], high=test["high"], margin=content["margin"],
               verdict=verdict)  # fmt: skip
    return cite([said], study.of_record(record, "overall, seeds, steps, margin"))[0]
