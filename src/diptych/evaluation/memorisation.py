"""Memorisation: are samples copies of training images? Statistics of nearest-neighbour distances.

With d(x) the distance from an image x to its nearest training image t(x), d2(x) to the second
nearest, and l(t) from a training image t to its own nearest other one:

    authenticity   share of samples with d(x) > l(t(x))           Alaa et al. 2022, arXiv:2102.08921
    nearest ratio  median of d(x) / d2(x)                         Yoon et al. 2023; Carlini et al.
                                                                  2023, arXiv:2301.13188
    C_T            mean over cells of the Mann-Whitney Z of d(samples) against d(held-out images),
                   weighted by the cells' shares of held-out images; below 0 where samples lie
                   nearer to the training images             Meehan et al. 2020, arXiv:2004.05675
    copies         the share of samples that are copies, below

The held-out images were not trained on, so they show what each figure is without any copy. C_T's
cells are those of k-means on the training images; an image is in the cell of t(x), and the cells
with too few images of either kind are left out and counted.

The share of copies. Let c be the k-th smallest d / d2 of n held-out images. If no two of them are
equal, the probability p0 that a fresh image lies at or below c has the law Beta(k, n + 1 - k) for
every distribution. Held-out images that are exact copies of training images all have the ratio 0;
if c is shared by several images, k is the number of all that lie at or below c, and the law is an
approximation: with 1 and 3 % of such duplicates and no copies, 2 to 4 % of the intervals excluded 0
(300 draws of 2,000 and of 10,000 images). Of m samples j lie at or below c, so that their
probability p has Jeffreys' law Beta(j + 1/2, m - j + 1/2). If every copy lies at or below c,

    share of copies = (p - p0) / (1 - p0)

whose 95 % interval comes from these two laws, cut to 0..1. Copies that the distance does not
recognise are missed, so the share is that of recognisable copies. d / d2 does not depend on how
sparse the training images are around x, and counts as 0 if d is 0: exact copies of training images
that occur twice are copies too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.stats import median_interval
from diptych.types import Float64, Floating, Int64

TAIL = 0.002  # share of held-out images whose ratio defines c
CELLS, SEED = 10, 2020
LEAST = 20  # images of each kind in a cell; also the paper's tau * m
GRID = 200  # quantiles of each law
Value = tuple[float, dict[str, Any]]


@dataclass(frozen=True)
class Distances:
    """Distances of N images to the training images.

    Attributes:
        index: (N,), the nearest training image.
        nearest: (N, 2), to the two nearest training images.
        local: (N,), from the nearest training image to its own nearest other one.
    """

    index: Int64
    nearest: Float64
    local: Float64

    @property
    def ratio(self) -> Float64:
        """The nearest distance over the second nearest, in 0..1; 0 for exact copies."""
        first, second = self.nearest.T
        found: Float64 = np.divide(first, second, out=np.zeros_like(first), where=first > 0)
        return found

    def __getitem__(self, rows: Any) -> Distances:
        return Distances(self.index[rows], self.nearest[rows], self.local[rows])


def memorisation(samples: Distances, held_out: Distances, cells: Int64) -> dict[str, Value]:
    """Every figure's value, with `interval` and `details`, by name.

    Args:
        samples, held_out: their distances to the same training images.
        cells: (T,) the cell of each training image; see `cells_of`.
    """
    return {
        "authenticity": authenticity(samples, held_out),
        "nearest-ratio": nearest_ratio(samples, held_out),
        "ct": data_copying(samples, held_out, cells),
        "copies": copies(samples, held_out),
    }


def authenticity(samples: Distances, held_out: Distances) -> Value:
    """The share of samples that are farther from their nearest training image than that is from
    its own neighbour; AuthPct is 100 times this."""

    def share(x: Distances) -> tuple[int, int]:
        return int(np.count_nonzero(x.nearest[:, 0] > x.local)), len(x.local)

    found, count = share(samples)
    law = _quantiles(found + 0.5, count - found + 0.5, np.array([0.025, 0.975]))
    fresh, of = share(held_out)
    ends = (min(float(law[0]), found / count), max(float(law[1]), found / count))
    return found / count, {"within": ends, "details": {"held_out": fresh / of}}


def nearest_ratio(samples: Distances, held_out: Distances) -> Value:
    """The median of d / d2."""
    fresh = float(np.median(held_out.ratio))
    ends = median_interval(samples.ratio.tolist())
    return float(np.median(samples.ratio)), {"within": ends, "details": {"held_out": fresh}}


def data_copying(samples: Distances, held_out: Distances, cells: Int64) -> Value:
    """C_T and its interval, from the Z of independent cells under no difference.

    Raises:
        UserError: no cell holds LEAST images of each kind.
    """
    ours, theirs = cells[samples.index], cells[held_out.index]
    weights, scores, left_out = [], [], 0
    for cell in np.unique(cells):
        a, b = samples.nearest[ours == cell, 0], held_out.nearest[theirs == cell, 0]
        if min(len(a), len(b)) < LEAST:
            left_out += 1
            continue
        weights.append(len(b))
        scores.append(_mann_whitney(a, b))
    if not weights:
        raise UserError(
            f"the C_T test needs {LEAST} samples and held-out images in one of its cells; "
            f"there are {len(ours)} and {len(theirs)} in {len(np.unique(cells))} cells: take more"
        )
    share = np.array(weights) / sum(weights)
    value, half = float(share @ np.array(scores)), 1.96 * float(np.sqrt(share @ share))
    details = {"cells": len(weights), "cells_left_out": left_out}
    return value, {"within": (value - half, value + half), "details": details}


def _mann_whitney(a: Float64, b: Float64) -> float:
    """Z of the Mann-Whitney U of a against b, below 0 where a is smaller; ties are shared."""
    from scipy.stats import rankdata

    n, m = len(a), len(b)
    u = float(rankdata(np.concatenate([a, b]))[:n].sum()) - n * (n + 1) / 2
    return (u - n * m / 2) / float(np.sqrt(n * m * (n + m + 1) / 12))


def copies(samples: Distances, held_out: Distances) -> Value:
    """The estimated share of copies among the samples; see the module.

    The interval is widened to hold the value, as the value is clipped to [0, 1] by itself.
    """
    fresh, n, m = np.sort(held_out.ratio), len(held_out.ratio), len(samples.ratio)
    threshold = float(fresh[max(1, round(TAIL * n)) - 1])
    k = int(np.count_nonzero(fresh <= threshold))  # more than TAIL * n if ratios are equal
    below = int(np.count_nonzero(samples.ratio <= threshold))
    at = (np.arange(GRID) + 0.5) / GRID
    p = _quantiles(below + 0.5, m - below + 0.5, at)[:, None]
    p0 = _quantiles(k, n + 1 - k, at)
    low, high = np.clip(np.quantile((p - p0) / (1 - p0), [0.025, 0.975]), 0, 1).tolist()
    expected = k / (n + 1)
    value = min(max((below / m - expected) / (1 - expected), 0.0), 1.0)
    details = {"below": below, "threshold": threshold, "expected_below": expected}
    return value, {"within": (min(low, value), max(high, value)), "details": details}


def _quantiles(a: float, b: float, at: Float64) -> Float64:
    from scipy.stats import beta

    found: Float64 = beta.ppf(at, a, b)
    return found


def cells_of(rows: Floating, held_out: int) -> Int64:
    """The k-means cell of each training image, from its rows (T, d); centres are fitted to at most
    10,000 of them. There is a cell for every 100 held-out images, but at most CELLS."""
    from scipy.cluster.vq import kmeans2, vq

    random = np.random.RandomState(SEED)
    some = rows[random.permutation(len(rows))[:10_000]].astype(np.float32)
    centres, _ = kmeans2(
        some, min(CELLS, max(1, held_out // 100), len(some)), minit="points", seed=random
    )
    labels, _ = vq(rows.astype(np.float32, copy=False), centres.astype(np.float32))
    found: Int64 = labels.astype(np.int64)
    return found
