"""Chapters of a page about logs, in the eight headings of Jittor reproductions.

A log holds losses, perhaps times and memory. Of all else (machine, data, commands, samples) the
page says that the logs do not tell it, so that whoever hands it in sees what is to be written.
"""

from __future__ import annotations

from collections.abc import Iterator

from diptych.figures.numbers import significant
from diptych.logs import Log
from diptych.logs.columns import ROLES
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import NONE, Block, GridRow, Plot, grid_of, plot
from diptych.pages.template import (
    Sentence,
    about,
    cite,
    ratio_sentence,
    say,
    words,
)
from diptych.pages.traces import thinned
from diptych.report.chapters import agreement, losses, memory, summary, times
from diptych.report.chapters.setup import cells, told
from diptych.report.numbers.logs import LogPair
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.logs import LogStudy
from diptych.stats import BLOCKS, DRAWS, LEAST_FOR_INTERVAL


def verdict(study: LogStudy) -> list[summary.Row]:
    """The rows of the verdict: losses, their end, times, memory."""
    if not study.pairs:
        return [row for row in summary.alone(study) if row is not None]
    pair = study.pairs[0]
    found = [_losses_row(study, pair), _end_row(study, pair), summary.step_row(study, pair),
             summary.epoch_row(study, pair), summary.memory_row(study, pair)]  # fmt: skip
    return [row for row in found if row is not None]


def _losses_row(study: LogStudy, pair: LogPair) -> summary.Row:
    sources, what = study.metrics("step, loss", *pair.at), phrase("verdict.losses")
    numbers = (pair.difference or {}).get("loss")
    if not numbers:
        return summary.Row(what, NONE, NONE, NONE, phrase("verdict.not_comparable"), sources)
    if numbers["max_relative"] == 0:
        return summary.Row(what, NONE, NONE, same("0"), phrase("verdict.same_numbers"), sources)
    gap = words("verdict.apart", median=numbers["median_relative"], most=numbers["max_relative"])
    return summary.Row(what, NONE, NONE, gap, phrase("verdict.no_verdict"), sources)


def _end_row(study: LogStudy, pair: LogPair) -> summary.Row | None:
    end = pair.loss_end
    if end is None:
        return None
    what = words("verdict.end", first=end["first_step"], last=end["last_step"])
    values = [same(significant(end[key]["mean"], 4)) for key in "ab"]
    sources = study.metrics("step, loss", *pair.at)
    alike = not pair.config_differences
    return summary.ratio_row(pair, what, values, end["ratio"], ("higher", "lower"), sources, alike)


def absent(key: str) -> Sentence:
    """Name the content of a chapter of a hand-in that logs do not have."""
    return say(f"log.absent.{key}")


def environment(study: LogStudy) -> Iterator[Block]:
    """The files, and what the logs do not tell of the machine."""
    logs, sources = study.logs, study.sources("", "all")
    yield absent("environment")
    rows: list[GridRow] = [
        ("log_file", [study.typed(log.folder) for log in logs]),
        ("log_format", [log.format for log in logs]),
        ("log_rows", [f"{log.rows:,}" for log in logs]),
        ("log_without", [f"{log.without_loss:,}" if log.without_loss else None for log in logs]),
    ]
    yield grid_of("log_files", study.labels, rows, sources)


def training(study: LogStudy) -> Iterator[Block]:
    """The settings that the logs tell."""
    logs = study.logs
    yield absent("training")
    keys = dict.fromkeys(key for log in logs for key in log.settings)
    if keys:
        body: list[GridRow] = [
            (same(key), [told(log.settings.get(key)) for log in logs]) for key in keys
        ]
        yield grid_of("log_settings", study.labels, body, study.sources("", "all"))


def alignment(study: LogStudy) -> Iterator[Block]:
    """Differences of the losses over common steps; unlike settings and grids."""
    for pair in study.pairs:
        sources = study.metrics("step, loss", *pair.at)
        yield from cite(match_sentences(pair), *sources)
        if pair.difference:
            a, b = pair.a.label, pair.b.label
            yield from cite(agreement.difference_sentences(pair.difference, a, b), *sources)
    if not study.pairs:
        yield say("log.alone")
    figure = agreement.difference_plot(study)
    if figure:
        yield figure
    for pair in study.pairs:
        yield from agreement.difference_tables(study, pair)


def match_sentences(pair: LogPair) -> Iterator[Sentence]:
    """Differences of the logs: draws, settings, learning rates, steps."""
    yield say("unmatched", "log.draws", **pair.names)
    for each in pair.config_differences:
        numbers = {"key": each["key"], "value_a": each["a"], "value_b": each["b"], **pair.names}
        yield say(f"log.unlike.{each['key']}", "log.unlike", **numbers)
    if pair.lr_differs is not None:
        yield say("log.unlike.lr", "log.unlike_lr", step=pair.lr_differs, **pair.names)
    a, b = pair.logs
    if a.stride != b.stride:
        strides = {"stride_a": a.stride, "stride_b": b.stride}
        common = pair.difference["steps"] if pair.difference else 0
        yield say("log.unlike.grid", "log.unlike_grid", n=common, **strides, **pair.names)
    elif pair.difference is None:
        yield say("log.unlike.grid", "log.no_common", **pair.names)
    elif a.step[0] != b.step[0] and {int(a.step[0]), int(b.step[0])} == {0, 1}:
        yield say("log.unlike.zero", "log.zero_based", **pair.names)


def assumptions(label: str, log: Log) -> Iterator[Sentence]:
    """Assumptions about one log, and its omissions."""
    yield from losses.torn(label, log)
    if log.missing:
        first, last = log.gaps[0]
        count = len(log.gaps)
        yield about(label, "log.gaps", n=log.missing, gaps=count, first=first, last=last)
    if log.repeated:
        yield about(label, "run.repeated", n=log.repeated)
    for key, numbers in log.facts:
        yield say(f"log.{key}.{label}", f"log.{key}", run=label, **numbers)
    if log.format.startswith("Diptych") and log.restarts:
        yield about(label, "log.resumed", steps=list(log.restarts))
    if log.stride > 1:
        yield about(label, "log.stride", n=log.stride)


def curves(study: LogStudy) -> Iterator[Block]:
    """The curves, every 200th step, the ends, and the columns that were read."""
    yield losses.loss_plot(study)
    every = losses.every_plot(study)
    if every:
        yield every
    for i, each in enumerate(study.numbers):
        yield from cite(assumptions(each.label, study.logs[i]), *study.metrics("step, loss", i))
        yield from cite(losses.not_finite(each.label, each.loss), *study.metrics("loss", i))
    for pair in study.pairs:
        said = [s for s in losses.loss_sentences(pair) if not s.key.startswith("loss.not_finite")]
        yield from cite(said, *study.metrics("loss", *pair.at))
    yield losses.summary(study)
    logs = study.logs
    rows: list[GridRow] = [
        (f"role_{role}", [log.columns.of.get(role) for log in logs]) for role in ROLES
    ]
    yield grid_of("log_columns", study.labels, rows, study.sources("", "all"))
    if not study.pairs:
        yield from losses.own_every(study)


def performance(study: LogStudy) -> Iterator[Block]:
    """Times of steps and epochs, and memory, where the logs hold them."""
    for pair in study.pairs:
        if pair.step_ratio:
            yield from cite(time_sentences(pair), *study.metrics("step_time", *pair.at))
    numbers = [each.step_time for each in study.numbers]
    for i, (label, found) in enumerate(zip(study.labels, numbers, strict=True)):
        if found is None:
            yield about(label, "log.no_times").by(*study.metrics("step", i))
    figure: Plot | None = times.step_plot(study)
    if figure:
        yield figure
    keys = [row for row in times.TIMES if row[0] != "data_share" and row[0] != "synced"]
    rows: list[GridRow] = [(row, cells(numbers, key, show)) for row, key, show in keys]
    if any(numbers):
        yield grid_of("times", study.labels, rows, study.metrics("step_time"))
    yield from times.epochs(study)
    held = [each.memory for each in study.numbers]
    for i, (label, found) in enumerate(zip(study.labels, held, strict=True)):
        if found is not None:
            said = memory.memory_sentences(label, found)
            yield from cite(said, *study.metrics("memory", i))
    if any(held):
        traces = losses.run_lines(study, lambda run: run.memory_mb)
        note = thinned([each.run.step.size for each in study.numbers])
        yield plot("memory", "step", "megabytes", traces, note, study.metrics("memory"))
        rows = [(row, cells(held, key, show)) for row, key, show in memory.MEMORY]
        yield grid_of("memory", study.labels, rows, study.metrics("memory"))
    else:
        yield say("log.no_memory")


def time_sentences(pair: PairNumbers) -> Iterator[Sentence]:
    """The ratio of the step times, and its caveat."""
    assert pair.step_ratio is not None
    what = ("step_time", "slower", "faster")
    yield ratio_sentence("time.ratio", what, pair.step_ratio, pair.a.label, pair.b.label)
    yield say("time.caveat", "log.caveat", **pair.names)


def method(study: LogStudy) -> Iterator[Sentence]:
    """Explain the numbers."""
    yield say("method.difference")
    yield say("method.time", "log.method_time")
    yield say("method.interval", draws=DRAWS, blocks=BLOCKS, least=LEAST_FOR_INTERVAL)
    yield say("method.memory")
    yield say("records.png")


def pair_sentences(pair: LogPair) -> Iterator[Sentence]:
    """All sentences about two logs, as compare.json lists them."""
    yield from match_sentences(pair)
    for label, log in zip(pair.names.values(), pair.logs, strict=True):
        yield from assumptions(label, log)
    if pair.difference:
        yield from agreement.difference_sentences(pair.difference, pair.a.label, pair.b.label)
    yield from losses.loss_sentences(pair)
    if pair.step_ratio:
        yield from time_sentences(pair)
    for each in pair.both:
        if each.step_time is None:
            yield about(each.label, "log.no_times")
    if any(each.epoch_time["complete"] for each in pair.both):
        yield from times.epoch_sentences(pair)
    for each in pair.both:
        if each.memory is not None:
            yield from memory.memory_sentences(each.label, each.memory)


def title(study: LogStudy) -> Text:
    """The page's title."""
    n = len(study.numbers)
    key = "title.logs" if n > 1 else "title.log"
    return words(key, runs=study.labels, n=n) if n > 1 else words(key, runs=study.labels)
