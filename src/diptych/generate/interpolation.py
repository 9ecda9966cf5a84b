"""Spherical interpolation between noises.

    slerp(a, b; f) = sin((1 - f) theta) / sin(theta) a + sin(f theta) / sin(theta) b

theta is the angle between a and b over all pixels of an image. A straight line between two noises
passes through points with a smaller norm than noise of that dimension has, and the images turn
grey; the arc keeps the norm. Source: Song et al. 2021, arXiv:2010.02502, appendix D.5.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from diptych.types import Float32

NEARLY_PARALLEL = 1e-6  # radians, below which the arc is a straight line to the last digit


def slerp(a: Float32, b: Float32, fraction: float) -> Float32:
    """The point at `fraction` of the arc from a to b, arrays of one shape; float32.

    The ends are exact: a copy of `a` at 0 and of `b` at 1. Opposite vectors have no unique shortest
    arc; noises are never opposite.
    """
    if fraction in (0.0, 1.0):
        return (b if fraction else a).copy()
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    theta = float(np.arccos(np.clip((x * y).sum() / norms, -1.0, 1.0))) if norms > 0 else 0.0
    if np.sin(theta) < NEARLY_PARALLEL:
        weights = 1.0 - fraction, fraction
    else:
        weights = tuple(np.sin(part * theta) / np.sin(theta) for part in (1 - fraction, fraction))
    between: Float32 = (weights[0] * x + weights[1] * y).astype(np.float32)
    return between


def path(points: Float32, between: int) -> Float32:
    """Points (K, ...) joined by arcs with `between` points on each: ((K-1)(between+1)+1, ...)."""
    found = [
        slerp(a, b, step / (between + 1))
        for a, b in pairwise(points)
        for step in range(between + 1)
    ]
    return np.stack([*found, points[-1].copy()])
