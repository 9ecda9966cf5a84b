"""The ratio of two runs' statistics, with an interval from the block bootstrap.

    log ratio +- t * sd * sqrt(BLOCKS / (BLOCKS - 1)),     t: Student's, BLOCKS - 1 degrees

`sd` is that of the log ratios of resamples. A machine's load lasts for many steps, so single
steps are not independent draws: blocks of a tenth of the run are resampled, from a circle, so
that every step is drawn equally often (Politis and Romano 1992). The runs are drawn
independently, as they ran. On simulated step times that have no true difference and whose load
lasts for 1 to 100 steps, 90 to 96 % of such intervals of 300 to 3,000 steps hold 1; the plain
percentile interval with blocks of the root of the steps held it in 76 to 92 %.

The interval says how far the same two runs could have come out otherwise. It knows nothing of
what is common to a whole run, such as a neighbour's load while one of them ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from diptych.types import Float64

DRAWS = 2000
BLOCKS = 10
T_QUANTILE = 2.2622  # Student's t with 9 degrees of freedom, 97.5 %
LEAST_FOR_INTERVAL = 3 * BLOCKS
# A longer run is thinned evenly before it is resampled: a second instead of a minute.
MOST_RESAMPLED = 20_000

Statistic = Callable[[Float64], Any]


def ratio(
    a: Float64, b: Float64, statistic: Statistic, paired: bool = False
) -> dict[str, float | int | None] | None:
    """statistic(b) / statistic(a), and its 95 % interval.

    Args:
        a, b: one positive number a step, (n,) and (m,), in the order of the steps.
        statistic: such as `np.median`: (n,) to a scalar.
        paired: a[i] and b[i] belong to the same step (n == m), so the same blocks are drawn of
            both and what they have in common cancels.

    Returns:
        `b_over_a`, `low`, `high`, `draws`, `blocks`; `low` and `high` are None with fewer than
        LEAST_FOR_INTERVAL steps in either. None where either is empty or its statistic is not
        positive: there is no ratio.
    """
    if min(a.size, b.size) == 0 or min(float(statistic(a)), float(statistic(b))) <= 0:
        return None
    found = float(statistic(b)) / float(statistic(a))
    numbers: dict[str, float | int | None] = {"b_over_a": found, "low": None, "high": None}
    if min(a.size, b.size) >= LEAST_FOR_INTERVAL:
        below = resample(a, statistic, stream=0)
        above = resample(b, statistic, stream=0 if paired else 1)
        known = (below > 0) & (above > 0)
        spread = float(np.std(np.log(above[known] / below[known]), ddof=1))
        half = T_QUANTILE * spread * math.sqrt(BLOCKS / (BLOCKS - 1))
        numbers |= {"low": found * math.exp(-half), "high": found * math.exp(half)}
        numbers |= {"draws": DRAWS, "blocks": BLOCKS}
    return numbers


def resample(values: Float64, statistic: Statistic, stream: int) -> Float64:
    """The statistic of DRAWS resamples, (DRAWS,); the same every time for the same `stream`."""
    values = values[:: -(-values.size // MOST_RESAMPLED)]
    length = values.size // BLOCKS
    generator = np.random.Generator(np.random.Philox(key=stream))
    blocks = -(-values.size // length)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        starts = generator.integers(0, values.size, size=(blocks, 1))
        index = ((starts + np.arange(length)) % values.size).ravel()[: values.size]
        drawn[i] = statistic(values[index])
    return drawn
