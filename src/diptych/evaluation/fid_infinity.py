"""The Frechet distance of infinitely many samples, extrapolated from several smaller sets.

    FID_n = FID_inf + b / n + ...        Chong and Forsyth 2020, arXiv:1911.07023

The N samples are permuted and cut into 1, 2 and 4 disjoint sets (1 and 2 if a quarter holds
fewer images than the features have dimensions, where terms of higher order are large). The mean
distance at each size is fitted by a straight line in 1 / n; its value at 0 is the estimate. Chong
and Forsyth draw overlapping random sets of 15 sizes instead; disjoint ones use every image at
every size.

The residuals of such a line say nothing of its error, because all sizes share their images. The
standard error is that of eight disjoint eighths, sd / sqrt(8). On Gaussian features it was 0.9 to
2.5 times the true spread of the estimate, so that intervals are rather too wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diptych.errors import UserError
from diptych.stats import mean_interval
from diptych.types import Floating

CUTS = (1, 2, 4)
PARTS, SEED = 8, 2020


@dataclass(frozen=True)
class Extrapolated:
    """The estimate, its standard error and 95 % interval (Student's t, 7 degrees of freedom).

    Attributes:
        sizes, means: the points of the line: images in a set, and the sets' mean distance.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    sizes: tuple[int, ...]
    means: tuple[float, ...]


def extrapolate(rows: Floating, distance: Callable[[Floating], float]) -> Extrapolated:
    """Extrapolate `distance`, a function of features (n, d), from features (N, d).

    Raises:
        UserError: fewer than 16 images.
    """
    count, dims = rows.shape
    if count < 2 * PARTS:
        raise UserError(f"fid-infinity needs {2 * PARTS} images or more, there are {count}")
    rows = rows[np.random.RandomState(SEED).permutation(count)]
    cuts = CUTS if count // CUTS[-1] >= dims else CUTS[:2]
    means = [float(np.mean([distance(rows[i::n]) for i in range(n)])) for n in cuts]
    value = float(np.polyfit(np.array(cuts) / count, means, 1)[1])
    eighths = [distance(rows[i::PARTS]) for i in range(PARTS)]
    low, high = mean_interval(eighths)
    half = (high - low) / 2
    error = float(np.std(eighths, ddof=1)) / PARTS**0.5
    sizes = tuple(count // n for n in cuts)
    return Extrapolated(value, error, (value - half, value + half), sizes, tuple(means))
