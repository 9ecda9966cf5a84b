"""Scores of one set of images against another: distances between features, with error bars.

The mathematics only needs NumPy and SciPy; features come from `diptych.evaluation.features`, which
runs on either backend. A score carries its protocol and is only compared with scores of the same
protocol.
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
