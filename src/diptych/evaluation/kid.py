"""The kernel distance (KID): an unbiased estimate of the squared maximum mean discrepancy.

    k(x, y) = (x.y / d + 1)**3
    MMD**2 = mean over i != j of k(x_i, x_j) + the same for y - 2 * mean over i, j of k(x_i, y_j)

averaged over random subsets, as torch-fidelity does: 100 of 1,000 images, drawn without
replacement by RandomState(2020). Binkowski et al. 2018, arXiv:1801.01401. Being unbiased, it may be
negative; its standard deviation over subsets describes the subsets, not the score: subsets overlap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diptych.errors import UserError
from diptych.types import Float64, Floating

SUBSETS, SUBSET_SIZE, SEED = 100, 1000, 2020


@dataclass(frozen=True)
class KernelDistance:
    """Mean and standard deviation (ddof 0) over the subsets; `std` is None if there is only one."""

    mean: float
    std: float | None


def kernel_distance(
    a: Floating,
    b: Floating,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
) -> KernelDistance:
    """KID of two sets of features, (N, d) and (M, d).

    Raises:
        UserError: fewer images than `subset_size` in either set.
    """
    least = min(len(a), len(b))
    if not 2 <= subset_size <= least:
        raise UserError(
            f"a subset of {subset_size} images cannot be drawn from {least}; "
            f"take more images or smaller subsets (2 or more)"
        )
    if subset_size == len(a) == len(b):
        return KernelDistance(unbiased_mmd(a, b), None)  # every subset is the whole
    random = np.random.RandomState(SEED)
    found = np.empty(subsets)
    for i in range(subsets):
        x = a[random.choice(len(a), subset_size, replace=False)]
        y = b[random.choice(len(b), subset_size, replace=False)]
        found[i] = unbiased_mmd(x, y)
    return KernelDistance(float(found.mean()), float(found.std()))


def unbiased_mmd(x: Floating, y: Floating) -> float:
    """The unbiased squared MMD of two sets of rows, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    m, n = len(x), len(y)
    kxx, kyy, kxy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = (kxx.sum() - np.trace(kxx)) / (m * (m - 1))
    within += (kyy.sum() - np.trace(kyy)) / (n * (n - 1))
    return float(within - 2.0 * kxy.mean())


def _kernel(x: Float64, y: Float64) -> Float64:
    inner = x @ y.T
    inner /= x.shape[1]
    inner += 1.0
    cube: Float64 = inner * inner * inner
    return cube
