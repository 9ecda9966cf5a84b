"""The ratio of two runs' statistics, with an interval from the block bootstrap.

A machine's load lasts for many steps, so single steps are not independent draws: whole blocks of
consecutive steps are resampled, from a circle, so that every step is drawn equally often. The
two runs are drawn independently, as they ran. The interval is the middle 95 % of the ratios
(Politis and Romano 1992, the circular block bootstrap; percentile interval).

It says how far the same two runs could have come out otherwise. It knows nothing of what is
common to a whole run, such as a neighbour's load while one of them ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.report.records import Floats

DRAWS = 2000
BLOCKS = 8
# Fewer steps make blocks too short to hold a spell of load.
LEAST_FOR_INTERVAL = 3 * BLOCKS
# A longer run is thinned evenly before it is resampled: a second in place of a minute.
MOST_RESAMPLED = 20_000

Statistic = Callable[[Floats], Any]


def ratio(a: Floats, b: Floats, statistic: Statistic) -> dict[str, float | int | None] | None:
    """statistic(b) / statistic(a), and the middle 95 % of its bootstrap.

    Args:
        a, b: one number a step, (n,) and (m,), in the order of the steps.
        statistic: such as `np.median`: (n,) to a scalar.

    Returns:
        `b_over_a`, `low`, `high`, `draws`, `block_a`, `block_b` (steps); `low` and `high` are
        None with fewer than LEAST_FOR_INTERVAL steps in either. None where either is empty or
        its statistic is not positive: there is no ratio.
    """
    if min(a.size, b.size) == 0 or min(float(statistic(a)), float(statistic(b))) <= 0:
        return None
    numbers: dict[str, float | int | None] = {
        "b_over_a": float(statistic(b)) / float(statistic(a)),
        "low": None,
        "high": None,
        "draws": DRAWS,
        "block_a": block_length(a.size),
        "block_b": block_length(b.size),
    }
    if min(a.size, b.size) >= LEAST_FOR_INTERVAL:
        below, above = resample(a, statistic, stream=0), resample(b, statistic, stream=1)
        positive = below > 0
        low, high = np.percentile(above[positive] / below[positive], (2.5, 97.5))
        numbers |= {"low": float(low), "high": float(high)}
    return numbers


def block_length(count: int) -> int:
    """Steps in a block: about the root of their number, and at least BLOCKS blocks in all."""
    return max(1, min(math.isqrt(count), count // BLOCKS))


def resample(values: Floats, statistic: Statistic, stream: int) -> Floats:
    """The statistic of DRAWS resamples, (DRAWS,); `stream` keys the draws, which are the same
    every time."""
    stride = -(-values.size // MOST_RESAMPLED)
    length = max(1, block_length(values.size) // stride)
    values = values[::stride]
    generator = np.random.Generator(np.random.Philox(key=stream))
    blocks = -(-values.size // length)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        starts = generator.integers(0, values.size, size=(blocks, 1))
        index = ((starts + np.arange(length)) % values.size).ravel()[: values.size]
        drawn[i] = statistic(values[index])
    return drawn
