"""The sentences that say how the numbers were made, with the constants that were used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.statistics import OUTLIER
from diptych.report.wording import Sentence, say
from diptych.stats import BLOCKS, DRAWS, LEAST_FOR_INTERVAL


def method(result: Mapping[str, Any]) -> Iterator[Sentence]:
    """What each kind of number means, for those kinds that the comparison holds."""
    if result["matched"]:
        yield say("method.difference", "method", "method.difference")
    yield from method_of_times()


def method_of_times() -> Iterator[Sentence]:
    """What the times, their intervals, the slow steps and the memory mean."""
    yield say("method.time", "method", "method.time")
    yield say(
        "method.interval",
        "method",
        "method.interval",
        draws=DRAWS,
        blocks=BLOCKS,
        least=LEAST_FOR_INTERVAL,
    )
    yield say("method.outliers", "method", "method.outliers", times=OUTLIER)
    yield say("method.memory", "method", "method.memory")
