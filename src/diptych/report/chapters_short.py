"""The first and the last chapters: what was found in short, how numbers are made, the records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.files import sha256_of
from diptych.report import statistics
from diptych.report.blocks import EMPTY, Block, Section, Table
from diptych.report.catalogue import Text, phrase, same
from diptych.report.chapters_setup import planned
from diptych.report.pairing import Compared
from diptych.report.sentences_method import method_of_times
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, Source, say, seconds, significant, words

# Which sentences stand at the top too, by the beginning of their keys, in this order.
VERDICTS = (
    "unmatched", "matched", "torn.", "run.end.", "run.gaps.", "align.first", "difference",
    "align.ladder", "align.training", "loss.ratio", "loss.end", "time.ratio", "time.caveat",
    "cost.outliers.", "memory.peak.", "pictures.weights",
    "samples", "score.",
)  # fmt: skip
DETAILS = (
    "difference.equal", "difference.growth", "difference.grad_norm", "difference.every_200",
    "samples.time", "score.seeds",
)  # fmt: skip
MOST = 16
MOST_NAMED = 8
MOST_HASHED = 50_000_000


@dataclass(frozen=True)
class Tile:
    """One number at the top: what it is, the number, what to know of it."""

    what: Text
    number: Text
    know: Text
    sources: tuple[Source, ...]


def short(sections: Sequence[Section], pairs: Sequence[Compared]) -> Iterator[Sentence]:
    """The sentences that say what was found, as they stand in their chapters."""
    said = [s for section in sections for s in section.sentences()]
    found: list[Sentence] = []
    for start in VERDICTS:
        found += [s for s in said if s.key.startswith(start) and s.key not in DETAILS
                  and s not in found]  # fmt: skip
    if not pairs:
        yield say("short.none", "short", "short.none")
    ends = [s for s in found if not (s.key.startswith("run.end.") and "planned" in s.numbers
                                     and "last" not in s.numbers)]  # fmt: skip
    yield from ends[:MOST]


def tiles(study: Study, pairs: Sequence[Compared]) -> Iterator[Tile]:
    """The few numbers at the top."""
    for pair in pairs[:2]:
        yield from _pair_tiles(study, pair)
    for i, run in enumerate(study.runs[:3]):
        numbers = statistics.step_time(run)
        label = study.labels[i]
        if not pairs and numbers:
            know = words("tile.timed", n=numbers["synced_steps"])
            yield Tile(words("tile.median", run=label), same(seconds(numbers["median"])), know,
                       study.metrics("data_s, compute_s, synced", i))  # fmt: skip
        held = statistics.memory(run)
        if held:
            yield Tile(words("tile.memory", run=label), same(f"{held['peak']:,.0f}"), same("MB"),
                       study.metrics("memory_mb", i))  # fmt: skip
        if not pairs:
            end = planned(run)
            know = words("tile.of", planned=end) if end else EMPTY
            yield Tile(words("tile.steps", run=label), same(f"{run.step[-1]:,}"), know,
                       study.metrics("step", i))  # fmt: skip


def _pair_tiles(study: Study, pair: Compared) -> Iterator[Tile]:
    both = (pair.pairing.a, pair.pairing.b)
    loss = (pair.numbers["difference"] or {}).get("loss")
    if loss:
        know = words("tile.at", step=loss["max_relative_step"], n=loss["compared"])
        yield Tile(words("tile.difference", a=pair.a, b=pair.b),
                   same(significant(loss["max_relative"])), know,
                   study.metrics("step, loss", *both))  # fmt: skip
    ratio = pair.numbers["step_time"]["ratio"]
    if ratio:
        known = ratio["low"] is not None
        know = words("tile.interval", ratio=ratio) if known else phrase("tile.no_interval")
        yield Tile(words("tile.ratio", a=pair.a, b=pair.b), same(f"{ratio['b_over_a']:.2f}"), know,
                   study.metrics("data_s, compute_s, synced", *both))  # fmt: skip


def method(pairs: Sequence[Compared]) -> Iterator[Sentence]:
    """What each kind of number means."""
    if any(pair.pairing.matched for pair in pairs):
        yield say("method.difference", "method", "method.difference")
    yield from method_of_times()
    yield say("records.png", "method", "records.png")


def number_sources(study: Study, sections: Sequence[Section]) -> dict[str, int]:
    """A number for every file that anything names, in the order of the page."""
    order: dict[str, int] = {}
    for section in sections:
        for block in section.blocks:
            for source in block.sources:
                order.setdefault(source.path, len(order) + 1)
    return order


def records(study: Study, sections: Sequence[Section], order: dict[str, int]) -> Iterator[Block]:
    """Every file that a number came from, with the fields and its hash."""
    fields: dict[str, dict[str, None]] = {path: {} for path in order}
    for section in sections:
        for block in section.blocks:
            for source in block.sources:
                fields[source.path] |= dict.fromkeys(source.fields.split(", "))
    yield say("records.every", "records", "records.every")
    if study.found.foreign:
        n = len(study.found.foreign)
        yield say("records.foreign", "records", "records.foreign", n=n)
    if study.found.damaged:
        named = [f"{'/'.join(path.parts[-2:])} ({why})"
                 for path, why in study.found.damaged.items()]  # fmt: skip
        yield say("records.damaged", "records", "records.damaged", n=len(named),
                  files=named[:MOST_NAMED])  # fmt: skip
    head = [phrase("column.number"), phrase("column.file"), phrase("column.fields"),
            same("sha256")]  # fmt: skip
    rows = [
        [same(str(n)), same(path), same(", ".join(fields[path])), same(_hash(study.out, path))]
        for path, n in order.items()
    ]
    yield Table(phrase("caption.records"), head, rows)


def _hash(out: Path, shown: str) -> str:
    path = Path(os.path.normpath(out.resolve() / shown))  # `out` itself need not exist yet
    if not path.is_file() or path.stat().st_size > MOST_HASHED:
        return "\N{EN DASH}"
    return sha256_of(path)[:12]


def unique(sentences: Sequence[Block]) -> list[Block]:
    """Blocks without sentences that say again what stands before them in the chapter."""
    found: list[Block] = []
    seen: set[Text] = set()
    for block in sentences:
        if isinstance(block, Sentence):
            if block.words in seen:
                continue
            seen.add(block.words)
        found.append(block)
    return found
