"""The chapters on agreement: what the runs share, how far their losses are apart, the ladder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diptych.report import plots, sentences
from diptych.report.blocks import NONE, Block, Table, grid_of
from diptych.report.catalogue import Text, known, phrase, same
from diptych.report.chapters_setup import planned, yes_no
from diptych.report.figures import ROUNDING
from diptych.report.gather import Record
from diptych.report.pairing import Compared
from diptych.report.records import Run
from diptych.report.statistics import STRIDE, loss_summary
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, Source, cite, say, significant, words

# More than float32 gives a loss that is summed in another order (see the tolerances of `align`).
ROUNDING_OF_A_LOSS = 1e-5


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
    data = pair.content["dataset_equal"] is True
    batch = a.config.train.batch_size == b.config.train.batch_size
    plan = seeds and a.config.model == b.config.model and a.config.data == b.config.data
    host = seeds and {a.config.train.noise, b.config.train.noise} == {"host"}
    none = a.config.model.dropout == b.config.model.dropout == 0
    facts = [
        ("weights", plan, "keyed" if plan else "keyed_not"),
        ("order", seeds and batch and data, "order" if seeds and batch and data else "order_not"),
        ("noise", host, "noise" if host else "noise_not"),
        ("dropout", host or none, "no_dropout" if none else "noise" if host else "noise_not"),
    ]
    head = [same(""), phrase("column.equal"), phrase("column.why")]
    rows = [[phrase(f"row.{key}"), yes_no(value), phrase(f"cell.{why}")]
            for key, value, why in facts]  # fmt: skip
    return Table(words("caption.shared", a=pair.a, b=pair.b), head, rows, sources)


def _difference(study: Study, pair: Compared) -> Iterator[Sentence]:
    numbers = pair.numbers["difference"]
    if not numbers:
        return
    sources = study.metrics("step, loss, grad_norm", pair.pairing.a, pair.pairing.b)
    if numbers["loss"] and numbers["first_step"] == 1:
        yield from cite([_first(study, pair)], *sources)
    yield from cite(sentences.difference(numbers, pair.a, pair.b), *sources)
    loss = numbers["loss"] or {"median_relative_last_tenth": 0.0}
    if loss["median_relative_last_tenth"] > 100 * ROUNDING_OF_A_LOSS:
        yield from cite([say("align.chaos", "alignment", "align.chaos")], *sources)


def _first(study: Study, pair: Compared) -> Sentence:
    a, b = (study.runs[i].loss[0] for i in (pair.pairing.a, pair.pairing.b))
    relative = abs(a - b) / max(abs(a), abs(b)) if max(abs(a), abs(b)) else 0.0
    alike = relative <= ROUNDING_OF_A_LOSS
    numbers: dict[str, Any] = {"step": 1, "relative": float(relative)}
    numbers |= {"rounding": ROUNDING} if alike else {}
    return say("align.first", "alignment", "align.first" if alike else "align.first_apart",
               **numbers)  # fmt: skip


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
    if identity not in {run.config.identity() for run in study.runs}:
        preset = str(content.get("preset"))
        other = say("align.ladder_other", "alignment", "align.ladder_other", preset=preset,
                    identity=identity)  # fmt: skip
        yield from cite([other], source)
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
    if len(run.starts) > 1:
        steps = [f"{step:,}" for step in run.starts[1:]]
        yield say(f"run.resumed.{label}", "losses", "run.resumed", run=label, n=len(steps),
                  steps=steps)  # fmt: skip


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
