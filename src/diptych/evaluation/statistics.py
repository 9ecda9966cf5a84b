"""Running statistics of features; shards add up exactly, to the last bit.

    n,    s = SUM x,    M = SUM x x^T;        mean = s / n,    cov = (M - s s^T / n) / (n - 1)

Floating-point sums depend on their order, so statistics of shards would not quite add up to those
of the whole. Here they are integers: a feature is rounded to a multiple of 2**-30 (a
sixty-fourth of float32's own step at 0.5), and that multiple is cut into two limbs
of at most 20 bits,

    x = (high * 2**20 + low) * 2**-30,      |x| < 2**10,

whose products a float64 matrix product sums without any rounding (8,192 rows of 2**40 make
2**53). Integer sums commute: any batch size, any shards, any order give the same bits. A row with a
larger value goes, alone, to a coarser grid (bound 2**26, 2**42, ...), kept apart, so that the
choice only depends on the row; that grid is no coarser than float32's step at the row's largest
value. Mean and covariance are computed at the end, in extended precision
if the machine has it, and returned as float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diptych.errors import UserError
from diptych.types import Float64, Floating, Int64

BITS = 20  # per limb
BOUND = 10  # the finest grid holds values below 2**BOUND
LADDER = 16  # bits from one grid to the next
ROWS = 1 << (53 - 2 * BITS)


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features.

    Attributes:
        n: number of images; None if another tool's file does not say.
        mean: (d,) float64.
        cov: (d, d) float64, symmetric, ddof 1.
    """

    n: int | None
    mean: Float64
    cov: Float64


@dataclass(frozen=True)
class Grid:
    """Exact sums of the rows on one grid: with q = 2**(bound - 40), x = (h 2**20 + l) q.

    Attributes:
        sums: (2, d) int64: sums of h and of l.
        outer: (3, d, d) int64: sums of h h^T, of h l^T + l h^T, and of l l^T.
    """

    sums: Int64
    outer: Int64

    def __add__(self, other: Grid) -> Grid:
        return Grid(self.sums + other.sums, self.outer + other.outer)


def _grid(rows: Floating, bound: int) -> Grid:
    """Sums of at most ROWS rows, all of them below 2**bound in magnitude."""
    scaled = np.rint(np.ldexp(rows.astype(np.float64), 2 * BITS - bound))
    high = np.rint(np.ldexp(scaled, -BITS))
    low = scaled - np.ldexp(high, BITS)
    cross = high.T @ low
    outer = np.stack([high.T @ high, cross + cross.T, low.T @ low])
    return Grid(np.stack([high.sum(0), low.sum(0)]).astype(np.int64), outer.astype(np.int64))


def _bounds(rows: Floating) -> Int64:
    """The bound of each row's grid, from the row's largest value."""
    _, exponent = np.frexp(np.abs(rows).max(axis=1))
    above = np.maximum(0, exponent.astype(np.int64) - BOUND)
    bounds: Int64 = BOUND + LADDER * -(-above // LADDER)
    return bounds


@dataclass
class Statistics:
    """n, sum and outer sum of features (N, dims); add batches, add shards, read moments."""

    dims: int
    n: int = 0
    grids: dict[int, Grid] = field(default_factory=dict)

    def add(self, features: Floating) -> None:
        """Add a batch.

        Args:
            features: (B, dims), float32 or float64, finite, below 2**100 in magnitude.

        Raises:
            UserError: wrong shape, or values that are not finite.
        """
        if features.ndim != 2 or features.shape[1] != self.dims:
            raise UserError(f"features are {features.shape}, expected (N, {self.dims})")
        if not len(features):
            return
        if not np.isfinite(features).all():
            raise UserError(
                "the features hold values that are not finite; the extractor's weights or the "
                "images are damaged"
            )
        bounds = _bounds(features)
        for bound in np.unique(bounds).tolist():
            chosen = features[bounds == bound]
            for first in range(0, len(chosen), ROWS):
                self._include(bound, _grid(chosen[first : first + ROWS], bound))
        self.n += len(features)

    def _include(self, bound: int, grid: Grid) -> None:
        self.grids[bound] = self.grids[bound] + grid if bound in self.grids else grid

    def __add__(self, other: Statistics) -> Statistics:
        """The statistics of both sets together; exact.

        Raises:
            UserError: different dimensions.
        """
        if self.dims != other.dims:
            raise UserError(
                f"statistics of {self.dims} and of {other.dims} dimensions cannot be added; "
                f"compute both with one extractor"
            )
        total = Statistics(self.dims, self.n + other.n, dict(self.grids))
        for bound, grid in other.grids.items():
            total._include(bound, grid)
        return total

    def __eq__(self, other: object) -> bool:
        """Return whether every bit is the same."""
        if not isinstance(other, Statistics):
            return NotImplemented
        return (
            (self.dims, self.n, set(self.grids)) == (other.dims, other.n, set(other.grids))
            and all(np.array_equal(g.outer, other.grids[b].outer) for b, g in self.grids.items())
            and all(np.array_equal(g.sums, other.grids[b].sums) for b, g in self.grids.items())
        )

    def moments(self) -> Moments:
        """Mean and covariance in float64.

        Raises:
            UserError: fewer than two images.
        """
        if self.n < 2:
            raise UserError(f"a covariance needs 2 images or more, there are {self.n}")
        total = np.zeros(self.dims, np.longdouble)
        outer = np.zeros((self.dims, self.dims), np.longdouble)
        for bound, grid in sorted(self.grids.items()):
            one = bound - 2 * BITS
            total += sum(_scaled(grid.sums[i], one + BITS * (1 - i)) for i in (0, 1))
            for i in (2, 1, 0):
                outer += _scaled(grid.outer[i], 2 * one + BITS * (2 - i))
        outer -= np.outer(total, total / self.n)
        cov = (outer / (self.n - 1)).astype(np.float64)
        return Moments(self.n, (total / self.n).astype(np.float64), (cov + cov.T) / 2)


def _scaled(values: Int64, exponent: int) -> npt.NDArray[np.longdouble]:
    scaled: npt.NDArray[np.longdouble] = np.ldexp(values.astype(np.longdouble), exponent)
    return scaled
