"""Chapter: how the numbers are made, with the constants that were used."""

from __future__ import annotations

from collections.abc import Iterator

from diptych.pages.document import Block
from diptych.pages.template import Sentence, say
from diptych.profiling.outliers import SLOW
from diptych.report.sources.collection import Study
from diptych.stats import BLOCKS, DRAWS, LEAST_FOR_INTERVAL


def chapter(study: Study) -> Iterator[Block]:
    """Explain each kind of number."""
    yield from method_sentences(any(pair.matched for pair in study.pairs))
    yield say("records.png")


def method_sentences(matched: bool) -> Iterator[Sentence]:
    """Explain differences, times, their intervals, the slow steps and the memory."""
    if matched:
        yield say("method.difference")
    yield say("method.time")
    yield say("method.interval", draws=DRAWS, blocks=BLOCKS, least=LEAST_FOR_INTERVAL)
    yield say("method.causes", k=SLOW)
    yield say("method.memory")
