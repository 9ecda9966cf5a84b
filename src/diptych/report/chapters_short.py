"""The first and the last chapters: what was found in short, how numbers are made, the records."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.figures.numbers import seconds, significant
from diptych.files import sha256_of
from diptych.profiling.outliers import SLOW
from diptych.report import statistics
from diptych.report.blocks import EMPTY, Block, Section, Table
from diptych.report.catalogue import Text, phrase, same
from diptych.report.chapters_setup import planned
from diptych.report.pairing import Compared
from diptych.report.sentences_method import method_of_times
from diptych.report.subjects import Study
from diptych.report.wording import Sentence, Source, say, words

# Which sentences stand at the top too, by the beginning of their keys: kinds, in this order.
VERDICTS = (
    "study.quick", "study.failing", "study.waiting", "study.absent",
    "matched", "unmatched", "torn.", "run.end.", "run.gaps.", "align.first", "difference",
    "align.ladder", "align.training", "loss.ratio", "loss.end", "time.ratio", "time.caveat",
    "cost.outliers.", "memory.peak.", "pictures.weights", "samples", "weights.", "score.",
    "study.left",
)  # fmt: skip
DETAILS = (
    "difference.equal", "difference.growth", "difference.grad_norm", "difference.every_200",
    "samples.time", "score.seeds", "score.reading",
)  # fmt: skip
# Of each kind so many, and so many in all: every kind has its first before any has its second.
MOST_OF_A_KIND = 2
MOST = 20
MOST_PAIRS, MOST_ALONE = 2, 3  # that have tiles: pairs, or else runs
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
    """The sentences that say what was found, as they stand in their chapters; how many are left."""
    said = [s for section in sections for s in section.sentences() if _found(s)]
    if not pairs:
        yield say("short.none", "short", "short.none")
    kinds: list[list[Sentence]] = []
    for start in VERDICTS:
        before = [s for kind in kinds for s in kind]
        kinds.append([s for s in said if s.key.startswith(start) and s not in before])
    room = MOST
    shown = [0] * len(kinds)
    for n in range(MOST_OF_A_KIND):
        for i, kind in enumerate(kinds):
            if room and len(kind) > n:
                shown[i], room = n + 1, room - 1
    for kind, count in zip(kinds, shown, strict=True):
        yield from kind[:count]
    more = sum(map(len, kinds)) - sum(shown)
    if more:
        yield say("short.more", "short", "short.more", n=more)


def _found(s: Sentence) -> bool:
    """Whether a sentence is a finding; that a run reached its end is none."""
    whole = s.key.startswith("run.end.") and "last" not in s.numbers
    return s.key not in DETAILS and not whole


def tiles(study: Study, pairs: Sequence[Compared]) -> Iterator[Tile]:
    """The few numbers at the top: of matching pairs, of two panels where there are such."""
    matched = [pair for pair in pairs if pair.pairing.matched]
    shown = ([pair for pair in matched if pair.across] or matched)[:MOST_PAIRS]
    for pair in shown:
        yield from _pair_tiles(study, pair)
    of_pairs = dict.fromkeys(i for pair in shown for i in (pair.pairing.a, pair.pairing.b))
    for i in list(of_pairs) or range(min(MOST_ALONE, len(study.runs))):
        yield from _run_tiles(study, i, alone=not shown)


def _run_tiles(study: Study, i: int, alone: bool) -> Iterator[Tile]:
    run, label = study.runs[i], study.labels[i]
    numbers, held = statistics.step_time(run), statistics.memory(run)
    if alone and numbers:
        know = words("tile.timed", n=numbers["synced_steps"])
        yield Tile(words("tile.median", run=label), same(seconds(numbers["median"])), know,
                   study.metrics("data_s, compute_s, synced", i))  # fmt: skip
    if held:
        yield Tile(words("tile.memory", run=label), same(f"{held['peak']:,.0f}"), same("MB"),
                   study.metrics("memory_mb", i))  # fmt: skip
    if alone:
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
    yield say("method.causes", "method", "method.causes", k=SLOW)
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
