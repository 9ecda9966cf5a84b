"""What a set of images is worth beside another: distances between features, and their error bars.

The mathematics needs NumPy and SciPy alone; features come from `diptych.evaluation.features`, which
runs in either panel. A score carries the protocol that made it, and is compared with its like only.
"""

from __future__ import annotations

from diptych.evaluation.frechet import frechet_distance
from diptych.evaluation.inception_score import inception_score
from diptych.evaluation.kid import kernel_distance
from diptych.evaluation.neighbours import Neighbours, neighbours
from diptych.evaluation.score import Score, difference
from diptych.evaluation.statistics import Moments, Statistics

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
