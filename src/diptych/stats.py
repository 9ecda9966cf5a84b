"""The intervals and tests of the package, with their assumptions and how they were checked.

    mean_interval        mean +- t(n - 1) sd / sqrt(n)                     a few independent numbers
    difference_interval  mean(b) - mean(a) +- t(df) sqrt(va + vb)          two groups of those
    ratio                statistic(b) / statistic(a), block bootstrap      two series of steps
    median_interval      order statistics, from inverting the sign test    pairs, one number each
    paired_tost          two one-sided tests of log(b / a)                 pairs, and a margin

`df` of two groups is halfway between Welch's and min(n, m) - 1. Welch's estimate is too large for
small samples: with 3 to 10 numbers in each and spreads that differ by up to 20 times, his 95 %
intervals cover the truth in 93.0 % or more of cases; those with min(n, m) - 1 in 94.8 % or more,
but they are 22 % wider. Halfway they cover it in 94.5 % or more and are 6 % wider than his (20,000
draws of normal numbers for each case).

The block bootstrap's interval is

    log ratio +- t(BLOCKS - 1) * sd * sqrt(BLOCKS / (BLOCKS - 1))

`sd` is that of the log ratios of resamples. A machine's load lasts for many steps, so single
steps are not independent draws: blocks of a tenth of the run are resampled from a circle, so that
every step is drawn equally often (Politis and Romano 1992). The runs are drawn independently, as
they ran, unless they are paired. On simulated step times without a true difference whose load lasts
for 1 to 100 steps, 90 to 96 % of these intervals over 300 to 3,000 steps cover 1; the plain
percentile interval with blocks of sqrt(steps) covered it in 76 to 92 %. The interval says how
differently the same two runs could have turned out. It cannot see effects on a whole run, such as
a neighbour's load while one of them ran.

Source of the two one-sided tests: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.types import Float64

LEVEL = 0.95  # of every interval except that of the equivalence test
TOST_LEVEL = 0.05  # of each of the two one-sided tests: their interval is a 90 % one
DRAWS = 2000
BLOCKS = 10
LEAST_FOR_INTERVAL = 3 * BLOCKS
# A longer run is thinned evenly before resampling, which takes a second instead of a minute.
MOST_RESAMPLED = 20_000

Statistic = Callable[[Float64], Any]


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """Student's t quantile for a two-sided interval; degrees of freedom need not be whole."""
    from scipy import stats  # imported here because it would slow `diptych --help` by half a second

    return float(stats.t.ppf(0.5 + level / 2, degrees))


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of two or more numbers: sd / sqrt(n)."""
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two or more independent, roughly normal numbers."""
    mean = float(np.mean(values))
    half = t_quantile(len(values) - 1) * standard_error(values)
    return mean - half, mean + half


def difference_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of mean(b) - mean(a); independent groups of two or more, any spreads."""
    gap = float(np.mean(b)) - float(np.mean(a))
    p, q = standard_error(a) ** 2, standard_error(b) ** 2
    half = t_quantile(_degrees(p, q, len(a), len(b))) * math.sqrt(p + q)
    return gap - half, gap + half


def _degrees(p: float, q: float, n: int, m: int) -> float:
    """Degrees of freedom halfway between Welch-Satterthwaite's and the fewest possible."""
    least = min(n, m) - 1
    if p + q == 0.0:
        return float(least)
    welch = (p + q) ** 2 / (p * p / (n - 1) + q * q / (m - 1))
    return (welch + least) / 2


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the median of independent numbers, whatever their distribution.

    Its ends are two of the numbers: it holds the medians that a sign test does not reject. None for
    fewer than six numbers, which cannot have such an interval.
    """
    from scipy.stats import binom

    ordered = sorted(values)
    cut = int(binom.ppf((1 - LEVEL) / 2, len(ordered), 0.5))
    return (ordered[cut - 1], ordered[-cut]) if cut >= 1 else None


def paired_tost(a: Sequence[float], b: Sequence[float], margin: float) -> dict[str, Any]:
    """Test equivalence: the ratio b / a lies within a margin that was set beforehand.

        d = log b - log a,   equivalent if mean d +- t(0.95, n - 1) sd / sqrt(n) lies within
        +-log(1 + margin)

    A difference that is not significant proves nothing; equivalence has to be shown, and pairs that
    are few or scattered do not show it.

    Args:
        a, b: positive numbers, one per pair, such as losses of the same seeds; 2 or more.
        margin: largest relative difference that counts as equivalent, above 0.

    Returns:
        `ratio` (geometric mean of b / a), `low`, `high` (90 % interval), `p` (the larger of the
        two one-sided ones), `equivalent`, `margin`, `seeds`, `sd` of the log ratios.

    Raises:
        UserError: if there are fewer than two pairs, lengths differ, the margin is 0 or less, or a
            number is not positive and finite.
    """
    if len(a) != len(b) or len(a) < 2:
        raise UserError("an equivalence test needs two or more seeds on both sides")
    if not margin > 0:
        raise UserError(f"the margin is {margin}; it must be above 0")
    if not min(*a, *b) > 0 or not math.isfinite(math.fsum((*a, *b))):
        raise UserError("a loss is not a positive number; the runs cannot be compared")
    differences = np.log(np.asarray(b, float)) - np.log(np.asarray(a, float))
    n, limit = len(differences), math.log1p(margin)
    mean, error = float(differences.mean()), standard_error(differences.tolist())
    half = t_quantile(n - 1, 1 - 2 * TOST_LEVEL) * error
    return {
        "ratio": math.exp(mean),
        "low": math.exp(mean - half),
        "high": math.exp(mean + half),
        "p": max(_tail(mean - limit, error, n), _tail(-limit - mean, error, n)),
        "equivalent": -limit < mean - half and mean + half < limit,
        "margin": margin,
        "seeds": n,
        "sd": float(differences.std(ddof=1)),
    }


def _tail(distance: float, error: float, n: int) -> float:
    """The probability of a mean this far below the limit if the truth were the limit."""
    if error == 0:
        return 0.0 if distance < 0 else 1.0
    from scipy import stats

    return float(stats.t.cdf(distance / error, n - 1))


def ratio(
    a: Float64, b: Float64, statistic: Statistic, paired: bool = False
) -> dict[str, float | int | None] | None:
    """statistic(b) / statistic(a), and its 95 % interval.

    Args:
        a, b: one positive number per step, (n,) and (m,), in the order of the steps.
        statistic: function from (n,) to a scalar along the last axis, such as `np.median`.
        paired: a[i] and b[i] belong to the same step (n == m), so the same blocks are drawn from
            both and their common variation cancels.

    Returns:
        `b_over_a`, `low`, `high`, `draws`, `blocks`; `low` and `high` are None with fewer than
        LEAST_FOR_INTERVAL steps in either, and then `draws` and `blocks` are absent. None if either
        is empty or its statistic is not positive: there is no ratio.
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
        half = t_quantile(BLOCKS - 1) * spread * math.sqrt(BLOCKS / (BLOCKS - 1))
        numbers |= {"low": found * math.exp(-half), "high": found * math.exp(half)}
        numbers |= {"draws": DRAWS, "blocks": BLOCKS}
    return numbers


def resample(values: Float64, statistic: Statistic, stream: int) -> Float64:
    """The statistic of DRAWS resamples, (DRAWS,); a pure function of its arguments."""
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
