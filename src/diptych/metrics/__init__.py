"""What a set of images is worth beside another: distances between features, and their error bars.

The mathematics needs NumPy and SciPy alone; features come from `diptych.features`, which runs in
either panel. A score carries the protocol that made it, and is compared with its like only.
"""

from __future__ import annotations

from diptych.metrics.frechet import frechet_distance
from diptych.metrics.inception_score import inception_score
from diptych.metrics.kernel import kernel_distance
from diptych.metrics.neighbours import Neighbours, neighbours
from diptych.metrics.score import Score, difference
from diptych.metrics.statistics import Moments, Statistics

__all__ = [
    "Moments",
    "Neighbours",
    "Score",
    "Statistics",
    "difference",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "neighbours",
]
