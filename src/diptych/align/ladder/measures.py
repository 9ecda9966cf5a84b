"""Distances between two arrays, each as one number; NumPy alone.

    max      largest |a - b| over the largest |b|
    angle    length of a/|a| - b/|b| = sqrt(2 (1 - cosine)), without its cancellation
    mean     mean |a - b| over the largest |b|            p99.9   likewise, the 99.9th percentile
    pixels   share of unequal values                      bits    share of values with unequal bits

`max` decides if every value counts. After Adam it cannot: a weight whose true gradient is zero
moves by +-lr because of rounding, in any framework; mean and p99.9 are used there.
"""

from __future__ import annotations

import numpy as np

from diptych.types import Array

Distances = dict[str, float]


def distances(kinds: tuple[str, ...], a: Array, b: Array, least: float = 0.0) -> Distances:
    """The distances of `a` from the truth `b` by kind.

    They are infinite if shapes differ; all but `bits` and `pixels` also if a value is not finite on
    one side, or not the same on both. Equal ones, such as -inf of a mask, count as no difference.

    Args:
        kinds: keys of the table above.
        a, b: arrays of the same shape.
        least: the smallest scale of a relative distance; shorter vectors have no angle.
    """
    if a.shape != b.shape:
        return {kind: float("inf") for kind in kinds}
    if a.size == 0:
        return dict.fromkeys(kinds, 0.0)
    if kinds in (("bits",), ("pixels",)):
        return {kinds[0]: float(np.mean(_unequal(a, b)))}
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    odd = ~(np.isfinite(wide_a) & np.isfinite(wide_b))
    if odd.any():
        if not np.array_equal(wide_a[odd], wide_b[odd], equal_nan=True):
            return {kind: float("inf") for kind in kinds}
        wide_a, wide_b = (np.where(odd, 0.0, wide) for wide in (wide_a, wide_b))
    apart = np.abs(wide_a - wide_b)
    scale = max(float(np.abs(wide_b).max()), least, 1e-300)
    found = {"max": lambda: float(apart.max()) / scale, "mean": lambda: float(apart.mean()) / scale,
             "p99.9": lambda: float(np.quantile(apart, 0.999)) / scale,
             "angle": lambda: _angle(wide_a, wide_b, least)}  # fmt: skip
    return {kind: found[kind]() for kind in kinds}


def _angle(a: Array, b: Array, least: float) -> float:
    length_a, length_b = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if max(length_a, length_b) <= least:
        return 0.0
    if min(length_a, length_b) == 0:
        return 1.0
    return float(np.linalg.norm(a / length_a - b / length_b))


def _unequal(a: Array, b: Array) -> Array:
    if a.dtype != b.dtype:
        return np.ones(a.shape, dtype=bool)
    if a.dtype.kind != "f":
        return np.asarray(a != b)
    whole = {4: np.uint32, 8: np.uint64, 2: np.uint16}[a.dtype.itemsize]
    return np.asarray(np.ascontiguousarray(a).view(whole) != np.ascontiguousarray(b).view(whole))
