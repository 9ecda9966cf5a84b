"""Chapter: sampling. Seconds of every sampled batch, and of an image in every sample folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.figures.numbers import seconds, significant
from diptych.pages.catalogue import phrase, same
from diptych.pages.document import Block, GridRow, Looks, Plot, Table, Trace, grid_of, plot
from diptych.pages.template import Sentence, about, cite, words
from diptych.report.chapters.setup import cells, told
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record

CARD = ("solver", "steps", "eta", "spacing", "clip", "seed", "num", "batch", "weights",
        "network_calls")  # fmt: skip


def chapter(study: Study) -> Iterator[Block]:
    """The batches in order, in words, as a figure and as a table; the sample folders' cards."""
    batches = [r for r in study.found.of("batches") if r.content.get("seconds")]
    for record in batches:
        said = _batches(study.label_of(record), record.content)
        yield from cite(said, study.of_record(record, "seconds"))
    if batches:
        yield _plot(study, batches)
        card = {key: batches[0].content.get(key) for key in ("batch", "solver", "steps")}
        times = [record.content["seconds"] for record in batches]
        longest = max(map(len, times))
        rows = [
            (same(str(k + 1)), [significant(t[k], 3) if k < len(t) else None for t in times])
            for k in range(longest)
        ]
        sources = study.of_records(batches, "seconds")
        labels = [study.label_of(record) for record in batches]
        caption = words("caption.batches", **card)
        yield grid_of(caption, labels, rows, sources, long=longest > 12)
    yield from _sampled(study)


def _batches(label: str, content: Mapping[str, Any]) -> Iterator[Sentence]:
    times = [float(value) for value in content["seconds"]]
    if len(times) > 1:
        rest: Looks = {"rest": float(np.median(times[1:])), "n": len(times) - 1}
        yield about(label, "cost.batches", first=times[0], **rest)


def _sampled(study: Study) -> Iterator[Table]:
    records = study.found.pictures()[:6]
    if not records:
        return
    cards = [record.content for record in records]
    rows: list[GridRow] = [(phrase(f"card.{k}"), [told(c.get(k)) for c in cards]) for k in CARD]
    rows.append(("seconds_image", cells(cards, "seconds_per_image", seconds)))
    names = [study.title_of(record) for record in records]
    sources = study.of_records(records, ", ".join(("seconds_per_image", *CARD)))
    yield grid_of("sampled", names, rows, sources)


def _plot(study: Study, records: Sequence[Record]) -> Plot:
    traces = []
    for record in records:
        label, colour = same(study.label_of(record)), study.colour_of(record)
        y = [float(f"{value:.4g}") for value in record.content["seconds"]]
        traces.append(Trace("line", label, colour, list(range(1, len(y) + 1)), y))
    return plot(
        "sampling-time", "batch", "seconds", traces, "batches", study.of_records(records, "seconds")
    )
