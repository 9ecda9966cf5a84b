"""Two one-sided tests: is the ratio of two losses within a margin that was set beforehand?

    d_i = log loss_B(seed i) - log loss_A(seed i),   equivalent if the 90 % interval of mean d
    lies within +-log(1 + margin):                    mean d +- t(0.95, n - 1) sd / sqrt(n)

A difference that is not significant proves nothing; equivalence has to be shown, and few or
scattered seeds do not show it. Both sides of a seed draw the same numbers, so what the seeds
have in common cancels. Source: Schuirmann 1987, J. Pharmacokinet. Biopharm. 15:657.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from diptych.errors import UserError

LEVEL = 0.05


def paired_tost(a: Sequence[float], b: Sequence[float], margin: float) -> dict[str, Any]:
    """The test on losses of the same seeds.

    Args:
        a, b: positive losses, one a seed, in the order of the seeds; 2 or more.
        margin: relative difference that counts as none, above 0.

    Returns:
        `ratio` (geometric mean of b / a), `low`, `high` (90 % interval), `p` (the larger of the
        two one-sided ones), `equivalent`, `margin`, `seeds`, `sd` of the log ratios.
    """
    if len(a) != len(b) or len(a) < 2:
        raise UserError("an equivalence test needs two or more seeds on both sides")
    if not margin > 0:
        raise UserError(f"the margin is {margin}; it must be above 0")
    differences = np.log(np.asarray(b, float)) - np.log(np.asarray(a, float))
    n, limit = len(differences), math.log1p(margin)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if not math.isfinite(mean):
        raise UserError("a loss is not a positive number; the runs cannot be compared")
    half = float(stats.t.ppf(1 - LEVEL, n - 1)) * error
    p = max(_tail(mean - limit, error, n), _tail(-limit - mean, error, n))
    return {
        "ratio": math.exp(mean),
        "low": math.exp(mean - half),
        "high": math.exp(mean + half),
        "p": p,
        "equivalent": -limit < mean - half and mean + half < limit,
        "margin": margin,
        "seeds": n,
        "sd": float(differences.std(ddof=1)),
    }


def _tail(distance: float, error: float, n: int) -> float:
    """The chance of a mean so far below the limit, were the truth the limit."""
    if error == 0:
        return 0.0 if distance < 0 else 1.0
    return float(stats.t.cdf(distance / error, n - 1))
