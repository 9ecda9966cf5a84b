"""Precision, recall, density and coverage: are the images plausible, and is every kind present?

Each real image x_i has a ball whose radius r_i is the distance to its k-th nearest other real
image, and each generated image y_j likewise has s_j:

    precision = share of y_j inside any ball of a real image         (Kynkaanniemi et al. 2019)
    recall    = share of x_i inside any ball of a generated image
    density   = mean over j of |{i: |y_j - x_i| <= r_i}| / k         (Naeem et al. 2020)
    coverage  = share of the balls of real images that hold any y_j

The comparison is `<=` throughout; k = 3. Distances are computed block by block, so memory does not
grow with N * M.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from diptych.errors import UserError
from diptych.types import Float64, Floating

K = 3
BLOCK = 1024
# Two equal distances, one from rows and one from their copies, may differ by their rounding.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Neighbours:
    """Shares in 0..1, except `density`, which may exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def neighbours(
    real: Floating,
    generated: Floating,
    k: int = K,
    block: int = BLOCK,
) -> Neighbours:
    """The four measures of features, (N, d) and (M, d).

    Args:
        real, generated: features of the reference and of the samples.
        k: the neighbour that gives the radius.
        block: rows of a distance block; memory is block * (N + M) float64.

    Raises:
        UserError: k or fewer images in a set.
    """
    for name, rows in (("reference", real), ("samples", generated)):
        if len(rows) <= k:
            raise UserError(
                f"the {name} hold {len(rows)} images; neighbour {k} needs {k + 1} or more"
            )
    centre = real.mean(axis=0, dtype=np.float64)
    x, y = real.astype(np.float64) - centre, generated.astype(np.float64) - centre
    slack = ROUNDING * max(float(np.einsum("ij,ij->i", rows, rows).max()) for rows in (x, y))
    r, s = _radii(x, k, block) + slack, _radii(y, k, block) + slack
    inside_any, in_balls = np.zeros(len(y), bool), 0
    recalled, covered = np.zeros(len(x), bool), np.zeros(len(x), bool)
    for first, distances in _distances(x, y, block):
        part = slice(first, first + len(distances))
        hit = distances <= r[part, None]
        inside_any |= hit.any(axis=0)
        in_balls += int(np.count_nonzero(hit))
        covered[part] = hit.any(axis=1)
        recalled[part] = (distances <= s[None, :]).any(axis=1)
    return Neighbours(
        precision=float(inside_any.mean()),
        recall=float(recalled.mean()),
        density=in_balls / (k * len(y)),
        coverage=float(covered.mean()),
    )


def _distances(x: Float64, y: Float64, block: int) -> Iterator[tuple[int, Float64]]:
    """(first row, squared distances of a block of x to all of y)."""
    y_norms = np.einsum("ij,ij->i", y, y)
    for first in range(0, len(x), block):
        part = x[first : first + block]
        distances = part @ y.T
        distances *= -2.0
        distances += np.einsum("ij,ij->i", part, part)[:, None]
        distances += y_norms
        yield first, np.maximum(distances, 0.0, out=distances)


def _radii(x: Float64, k: int, block: int) -> Float64:
    """Squared distance of each row to its k-th nearest other row."""
    radii = np.empty(len(x))
    for first, distances in _distances(x, x, block):
        rows = np.arange(len(distances))
        distances[rows, first + rows] = np.inf
        radii[first : first + len(distances)] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii
