"""The sentences that say how the numbers were made, with the constants that were used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.interval import BLOCKS, DRAWS, LEAST_FOR_INTERVAL
from diptych.report.statistics import OUTLIER
from diptych.report.wording import Sentence, say


def method(result: Mapping[str, Any]) -> Iterator[Sentence]:
    """What each kind of number means, for those kinds that the comparison holds."""
    if result["matched"]:
        yield say(
            "method.difference",
            "method",
            "The relative difference of two losses a and b is |a - b| / max(|a|, |b|).",
        )
    yield say(
        "method.time",
        "method",
        "A step's time is its wait for data and its computation together, taken only from steps "
        "at both of whose ends the device was synchronised; an epoch's time is the sum over all "
        "its steps, without what lies between them, such as saving.",
    )
    yield say(
        "method.interval",
        "method",
        "The 95 % interval of a ratio comes from {draws:count} bootstrap resamples of blocks of "
        "consecutive steps, each 1/{blocks} of its run, the two runs drawn independently with a "
        "fixed seed, and Student's t; it is given from {least} steps on.",
        draws=DRAWS,
        blocks=BLOCKS,
        least=LEAST_FOR_INTERVAL,
    )
    yield say(
        "method.outliers",
        "method",
        "A slow step is one that took more than {times:g} times its run's own median.",
        times=OUTLIER,
    )
    yield say(
        "method.memory",
        "method",
        "Memory is what each run recorded after a step; its slope is the median of the slopes "
        "between all pairs of readings (Theil-Sen) of the run's second half.",
    )
