"""Intervals hold the truth as often as they say, also for few numbers of unlike spread."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.stats import t as student

from diptych import stats

DRAWS = 20_000  # a share of 95 % is then known to 0.15 %
SIZES = (3, 4, 6, 10)
RATIOS = (0.05, 0.33, 0.5, 0.71, 1.0, 1.41, 2.0, 3.0, 20.0)


def test_the_difference_of_groups_of_unlike_spread_is_covered():
    """Welch's own degrees of freedom cover 93.0 % in the worst of these cases."""
    draws = np.random.default_rng(0)
    degrees = np.vectorize(stats._degrees)
    worst = {}
    for n, m in itertools.combinations_with_replacement(SIZES, 2):
        # Means and variances of normal samples are independent, so they are drawn by themselves.
        gaps = draws.standard_normal((2, DRAWS))
        spreads = [draws.chisquare(k - 1, DRAWS) / (k - 1) for k in (n, m)]
        for ratio in RATIOS:
            p, q = spreads[0] / n, ratio**2 * spreads[1] / m
            quantile = student.ppf(0.975, degrees(p, q, n, m))
            gap = gaps[0] / np.sqrt(n) - ratio * gaps[1] / np.sqrt(m)
            worst[n, m, ratio] = float(np.mean(np.abs(gap) <= quantile * np.sqrt(p + q)))
    case = min(worst, key=worst.__getitem__)
    assert worst[case] >= 0.94, (case, worst[case])
    assert max(worst.values()) < 0.99, "an interval that always holds says nothing"


@pytest.mark.parametrize("n, m, ratio", [(3, 10, 0.5), (10, 3, 0.5), (3, 3, 20.0)])
def test_the_difference_interval_is_what_was_simulated(n, m, ratio):
    draws = np.random.default_rng(1)
    held = 0
    for _ in range(2000):
        low, high = stats.difference_interval(
            draws.normal(1.0, 1.0, n).tolist(), draws.normal(3.0, ratio, m).tolist()
        )
        held += low <= 2.0 <= high
    assert 0.935 <= held / 2000 <= 0.985


def test_the_mean_is_covered():
    draws = np.random.default_rng(2)
    held = 0
    for _ in range(4000):
        low, high = stats.mean_interval(draws.standard_normal(4).tolist())
        held += low <= 0.0 <= high
    assert held / 4000 == pytest.approx(0.95, abs=0.01)


def test_the_median_is_covered_whatever_the_distribution():
    draws = np.random.default_rng(3)
    held = 0
    for _ in range(4000):
        low, high = stats.median_interval(np.exp(2 * draws.standard_normal(15)).tolist())
        held += low <= 1.0 <= high
    assert 0.95 <= held / 4000 <= 0.985
    assert stats.median_interval([1.0] * 5) is None


def test_equal_numbers_have_intervals_of_no_width():
    assert stats.difference_interval([1.0] * 3, [2.0] * 4) == (1.0, 1.0)
    assert stats.mean_interval([2.0] * 3) == (2.0, 2.0)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_an_equivalence_test_of_what_is_no_loss_is_refused(bad):
    from diptych.errors import UserError

    with pytest.raises(UserError, match="not a positive number"):
        stats.paired_tost([1.0, bad, 1.0], [1.0, 1.0, 1.0], 0.1)
