"""Chapter: the verdict, and the records behind it.

table      at most ROWS rows: quantity, both values, their difference, a verdict
verdict    follows from the 95 % interval: "no difference shown" if it contains 1 (a ratio)
           or 0 (a difference), a direction if it does not, none without an interval,
           "not comparable" if data, machines, work or protocols differ
sentences  at most SENTENCES, one of each kind, those that limit the study first
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.backends import TITLES
from diptych.evaluation.score import better
from diptych.figures.numbers import seconds, significant
from diptych.files import sha256_of
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import EMPTY, NONE, Block, Section, Table, cells_of, head
from diptych.pages.template import Sentence, Source, pick, say, words
from diptych.report.chapters import scores
from diptych.report.chapters.agreement import SUMMED_APART, first_gaps, ladder_counts
from diptych.report.numbers.costs import epoch_ratio
from diptych.report.numbers.losses import end_ratio
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record
from diptych.stats import ratio
from diptych.types import Float64

ROWS, SENTENCES = 8, 5
# Sentences repeated at the top, by the start of their keys, the most limiting first.
URGENT = (
    "study.quick", "study.failing", "study.waiting", "study.absent", "unmatched", "matched",
    "loss.not_finite.", "torn.", "run.end.", "run.gaps.", "align.first", "align.chaos",
    "log.unlike", "log.damaged", "log.resumed", "log.gaps", "time.caveat", "weights.",
    "pictures.weights", "study.left",
)  # fmt: skip
SAMPLED = ("solver", "steps", "network_calls", "batch", "device")
MOST_NAMED = 8
MOST_HASHED = 50_000_000
Ratio = dict[str, Any] | None


@dataclass(frozen=True)
class Row:
    """One row of the verdict; `gap` is B over A, or B minus A, with its interval."""

    what: Text
    a: Text
    b: Text
    gap: Text
    verdict: Text
    sources: tuple[Source, ...]


def verdict(study: Study) -> list[Row]:
    """The rows of the first comparable pair, else of the one run."""
    pair = first_pair(study)
    rows = alone(study) if pair is None else _rows(study, pair)
    found = [row for row in rows if row is not None]
    spare = phrase("verdict.epoch")  # repeats the steps, so it is dropped first
    return [row for row in found if len(found) <= ROWS or row.what != spare][:ROWS]


def first_pair(study: Study) -> PairNumbers | None:
    """The first pair compared step by step, preferably of two backends."""
    ranked = sorted(study.pairs, key=lambda pair: (not pair.matched, not pair.across))
    return ranked[0] if ranked else None


def chapter(study: Study, rows: Sequence[Row], sections: Sequence[Section]) -> Iterator[Block]:
    """The table of verdicts, and the few sentences to read first."""
    sources = tuple(dict.fromkeys(source for row in rows for source in row.sources))
    pair = first_pair(study)
    if pair is None:
        titles, body = [*head("what"), same(study.labels[0])], [[row.what, row.a] for row in rows]
        yield Table(phrase("caption.verdict_alone"), titles, body, sources)
    else:
        a, b = (TITLES.get(each.label, each.label) for each in pair.both)
        titles = [*head("what"), same(a), same(b), *head("gap", "verdict")]
        body = [[row.what, row.a, row.b, row.gap, row.verdict] for row in rows]
        yield Table(words("caption.verdict", a=a, b=b), titles, body, sources)
    yield from _sentences(study, pair, sections)


def _sentences(
    study: Study, pair: PairNumbers | None, sections: Sequence[Section]
) -> Iterator[Sentence]:
    own = {None, *(pair.names.values() if pair else study.labels)}  # others are in the chapters
    said = [s for section in sections for s in section.sentences()]
    said = [s for s in said if {s.numbers.get(key) for key in ("a", "b", "run")} <= own]
    said = [s for s in said if not s.key.startswith("run.end.") or "last" in s.numbers]
    kinds = [next((s for s in said if s.key.startswith(start)), None) for start in URGENT]
    found = list({s.key: s for s in kinds if s}.values())
    if pair is None:
        found.insert(0, say("short.none"))
    elif len(study.numbers) > 2:
        n, more = len(study.numbers), len(study.pairs) - 1
        template = "short.pair" if pair.matched else "short.pair_apart"
        found.insert(0, say("short.pair", template, n=n, more=more, **pair.names))
    yield from found[:SENTENCES]


def _rows(study: Study, pair: PairNumbers) -> Iterator[Row | None]:
    yield _agreement(study, pair)
    yield _end(study, pair)
    yield _free(study)
    yield _score(study, pair)
    yield step_row(study, pair)
    yield epoch_row(study, pair)
    yield _sampling(study, pair)
    yield memory_row(study, pair)
    yield _ladder(study)


def _agreement(study: Study, pair: PairNumbers) -> Row | None:
    """The row of step-by-step losses, including the agreement at the start."""
    sources = study.metrics("step, loss", *pair.at)
    what = phrase("verdict.losses")
    if not pair.matched:
        return Row(what, NONE, NONE, NONE, phrase("verdict.not_comparable"), sources)
    numbers = (pair.difference or {}).get("loss")
    if not numbers:
        return None
    if numbers["max_relative"] == 0:
        return Row(what, NONE, NONE, same("0"), phrase("verdict.equal"), sources)
    gap = words("verdict.apart", median=numbers["median_relative"], most=numbers["max_relative"])
    gaps = first_gaps(pair)
    alike = gaps is not None and gaps[0] <= SUMMED_APART
    key = "same_start" if alike else "no_verdict" if gaps is None else "other_start"
    return Row(what, NONE, NONE, gap, phrase(f"verdict.{key}"), sources)


def _end(study: Study, pair: PairNumbers) -> Row | None:
    end = pair.loss_end
    if end is None:
        return None
    what = words("verdict.end", first=end["first_step"], last=end["last_step"])
    values = [same(significant(end[key]["mean"], 4)) for key in "ab"]
    found = end_ratio(pair.a.run, pair.b.run, paired=pair.matched)
    sources = study.metrics("step, loss", *pair.at)
    return ratio_row(pair, what, values, found, ("higher", "lower"), sources, pair.same_loss)


def _free(study: Study) -> Row | None:
    records = study.found.of("training")
    if not records:
        return None
    content, test = records[0].content, records[0].content["overall"]
    gap = words("verdict.free_gap", **pick(test, "ratio low high"))
    key = "equivalent" if test["equivalent"] else "not_equivalent"
    source = study.of_record(records[0], "overall, seeds, steps, margin")
    what = words("verdict.free", steps=content["steps"])
    return Row(what, NONE, NONE, gap, words(f"verdict.{key}", margin=content["margin"]), (source,))


def _score(study: Study, pair: PairNumbers) -> Row | None:
    """The first score that both have under one protocol."""
    said = scores.judged(study, pair)
    if said is None:
        return None
    numbers, what = said.numbers, same(said.numbers["metric"])
    if "value_a" not in numbers:
        return Row(what, NONE, NONE, NONE, phrase("verdict.not_comparable"), said.sources)
    a, b = (same(significant(numbers[key], 4)) for key in ("value_a", "value_b"))
    if "low" not in numbers:
        gap = words("verdict.gap_alone", gap=numbers["value_b"] - numbers["value_a"])
        return Row(what, a, b, gap, phrase("verdict.no_interval"), said.sources)
    gap = words("verdict.gap", **pick(numbers, "gap low high"))
    if numbers["low"] <= 0 <= numbers["high"]:
        return Row(what, a, b, gap, phrase("verdict.none"), said.sources)
    lower = numbers["high"] < 0
    key = better(said.numbers["metric"], lower) or ("lower" if lower else "higher")
    return Row(what, a, b, gap, _direction(pair, key), said.sources)


def _direction(pair: PairNumbers, key: str) -> Text:
    """One word that describes B relative to A."""
    run = TITLES.get(pair.b.label, pair.b.label)
    return words("verdict.word", run=run, word=phrase(f"verdict.{key}"))


def step_row(study: Study, pair: PairNumbers) -> Row | None:
    values = [same(seconds(each.step_time["median"])) for each in pair.both if each.step_time]
    sources = study.metrics("data_s, compute_s, synced", *pair.at)
    return cost_row(pair, "verdict.step", values, pair.step_ratio, sources)


def epoch_row(study: Study, pair: PairNumbers) -> Row | None:
    times = [each.epoch_time for each in pair.both]
    values = [same(seconds(time["median"])) for time in times if time["complete"]]
    sources = study.metrics("epoch, data_s, compute_s", *pair.at)
    return cost_row(pair, "verdict.epoch", values, epoch_ratio(*times), sources)


def _sampling(study: Study, pair: PairNumbers) -> Row | None:
    """Seconds per image: timed batches except the first, else sample folders drawn alike."""
    a, b = pair.both
    for kind in ("batches", "samples") if pair.across else ("samples",):  # batches name no run
        for one in study.found.of(kind, None if kind == "batches" else pair.at[0]):
            for other in study.found.of(kind, None if kind == "batches" else pair.at[1]):
                alike = all(one.content.get(k) == other.content.get(k) for k in SAMPLED)
                whose = (one.backend, other.backend) == (a.run.backend, b.run.backend)
                times = [_per_image(record) for record in (one, other)]
                if one is not other and alike and whose and all(each.size for each in times):
                    values = [same(seconds(float(np.median(each)))) for each in times]
                    found = ratio(times[0], times[1], lambda x: np.median(x, axis=-1))
                    sources = study.of_records((one, other), "seconds, batch, seconds_per_image")
                    return cost_row(pair, "verdict.sampling", values, found, sources)
    return None


def _per_image(record: Record) -> Float64:
    """Seconds per image: each timed batch except the first, or a whole sample folder."""
    if record.kind == "batches":
        times = np.array(record.content["seconds"], dtype=np.float64)
        return times[min(1, times.size - 1) :] / (record.content["batch"] or 1)
    spent = record.content["seconds_per_image"]
    return np.array([spent] if spent else [], dtype=np.float64)


def memory_row(study: Study, pair: PairNumbers) -> Row | None:
    peaks = [np.array([each.memory["peak"]]) for each in pair.both if each.memory]
    found = ratio(peaks[0], peaks[1], np.max) if len(peaks) == 2 else None
    values = [same(f"{float(peak[0]):,.0f} MiB") for peak in peaks]
    return cost_row(pair, "verdict.memory", values, found, study.metrics("memory_mb", *pair.at))


def _ladder(study: Study) -> Row | None:
    records = study.found.of("ladder")
    own = [r for r in records if study.trained_with(r.content["config_identity"])]
    for record in own or records:
        counts = ladder_counts(record.content)
        source = study.of_record(record, "rungs, mutations, passed, first_failure")
        gap = words("verdict.rungs", **pick(counts, "passed rungs"))
        if counts["planted"]:
            gap = words("verdict.rungs_faults", **pick(counts, "passed rungs caught planted"))
        told = phrase("verdict.passes" if own else "verdict.passes_other")
        if not record.content["passed"]:
            told = words("verdict.fails", rung=counts["failed"])
        return Row(phrase("verdict.ladder"), NONE, NONE, gap, told, (source,))
    return None


def cost_row(
    pair: PairNumbers, key: str, values: Sequence[Text], found: Ratio, sources: tuple[Source, ...]
) -> Row | None:
    """A row of times or memory, without a verdict if machines or work differ."""
    if len(values) < 2:
        return None
    more, less = ("more", "less") if key == "verdict.memory" else ("slower", "faster")
    alike = not (pair.machine_differences or pair.work_differences)
    return ratio_row(pair, phrase(key), values, found, (more, less), sources, comparable=alike)


def ratio_row(
    pair: PairNumbers,
    what: Text,
    values: Sequence[Text],
    found: Ratio,
    above_below: tuple[str, str],
    sources: tuple[Source, ...],
    comparable: bool,
) -> Row:
    known = found is not None and found["low"] is not None
    gap = words("verdict.ratio" if known else "verdict.ratio_alone", ratio=found) if found else NONE
    if not comparable:
        told = phrase("verdict.not_comparable")
    elif found is None or not known:
        told = phrase("verdict.no_interval")
    elif found["low"] <= 1 <= found["high"]:
        told = phrase("verdict.none")
    else:
        told = _direction(pair, above_below[0] if found["low"] > 1 else above_below[1])
    return Row(what, values[0], values[1], gap, told, sources)


def alone(study: Study) -> Iterator[Row | None]:
    """The numbers of a single run, without a verdict."""
    each = study.numbers[0]

    def row(key: str | Text, value: str | None, *sources: Source) -> Row | None:
        what = key if isinstance(key, Text) else phrase(f"verdict.{key}")
        return None if value is None else Row(what, same(value), EMPTY, EMPTY, EMPTY, sources)

    tail, time, memory = each.loss["last_tenth_mean"], each.step_time, each.memory
    yield row("steps", f"{each.run.step[-1]:,}", *study.metrics("step", 0))
    yield row("tail", significant(tail, 4) if tail else None, *study.metrics("loss", 0))
    for record in study.found.of("scores"):
        first, source = record.content["scores"][0], study.of_record(record, "scores.value")
        yield row(same(first["metric"]), significant(first["value"], 4), source)
    median = seconds(time["median"]) if time else None
    yield row("step", median, *study.metrics("data_s, compute_s, synced", 0))
    epoch = each.epoch_time["median"]
    fields = "epoch, data_s, compute_s"
    yield row("epoch", seconds(epoch) if epoch else None, *study.metrics(fields, 0))
    peak = f"{memory['peak']:,.0f} MiB" if memory else None
    yield row("memory", peak, *study.metrics("memory_mb", 0))


def records(study: Study, sections: Sequence[Section], order: dict[str, int]) -> Iterator[Block]:
    """Every file from which a number came, with the fields and its hash."""
    fields: dict[str, dict[str, None]] = {path: {} for path in order}
    for section in sections:
        for block in section.blocks:
            for source in block.sources:
                fields[source.path] |= dict.fromkeys(source.fields.split(", "))
    yield say("records.every")
    if study.found.foreign:
        yield say("records.foreign", n=len(study.found.foreign))
    damaged = study.found.damaged
    if damaged:
        files = [f"{'/'.join(path.parts[-2:])} ({why})" for path, why in damaged.items()]
        yield say("records.damaged", n=len(files), files=files[:MOST_NAMED])
    rows = [
        [str(n), path, ", ".join(fields[path]), _hash(study.out, path)] for path, n in order.items()
    ]
    titles = [*head("number", "file", "fields"), same("sha256")]
    yield Table(phrase("caption.records"), titles, cells_of(rows))


def _hash(out: Path, shown: str) -> str:
    path = Path(os.path.normpath(out.resolve() / shown))  # `out` itself need not exist yet
    if not path.is_file() or path.stat().st_size > MOST_HASHED:
        return "\N{EN DASH}"
    return sha256_of(path)[:12]
