"""The Frechet distance of two Gaussians, without a matrix square root.

    d = |m1 - m2|**2 + Tr S1 + Tr S2 - 2 Tr (S1 S2)**(1/2),
    Tr (S1 S2)**(1/2) = sum of the singular values of F1 F2^T,    where F^T F = S

(Dowson and Landau 1982; the nonzero singular values of F1 F2^T do not depend on the choice of the
factors.) The factor of each side depends on the data available:

    1. fewer images than dimensions, features given: the centred features / sqrt(n - 1), exact
    2. a covariance that is well-conditioned and positive definite: its Cholesky factor
    3. else: its eigenvectors, without eigenvalues below lambda_max * d * eps, which are noise

So nothing is ever added to a diagonal, no complex number appears, and a singular covariance needs
no special case. `scipy.linalg.sqrtm` of the product, which other tools call, takes several times
as long (`benchmarks/metrics.py`) and is off by the root of its rounding if S is singular.
NumPy's routines are used, not SciPy's: on a busy two-core machine SciPy's BLAS took up to ten times
as long, because its threads wait for each other.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import lapack

from diptych.errors import UserError
from diptych.evaluation.statistics import Moments
from diptych.types import Float64, Floating

_DOUBT = 1e-9  # of the trace of the root


def frechet_distance(
    a: Moments,
    b: Moments,
    features_a: Floating | None = None,
    features_b: Floating | None = None,
) -> float:
    """The squared 2-Wasserstein distance of the two Gaussians; 0 or more up to rounding.

    Args:
        a, b: mean (d,) and covariance (d, d) of each side, float64.
        features_a, features_b: the features (N, d) behind the moments, if available: they serve
            as an exact factor if N < d.

    Raises:
        UserError: different dimensions, or values or a distance that are not finite.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"the statistics have {a.mean.size} and {b.mean.size} dimensions; they come from "
            f"different extractors: compute both with one"
        )
    for side in (a, b):
        if not (np.isfinite(side.mean).all() and np.isfinite(side.cov).all()):
            raise UserError("the statistics hold values that are not finite; compute them again")
    with np.errstate(over="ignore", invalid="ignore"):  # judged by the result
        gap = a.mean - b.mean
        f1, f2 = factor(a, features_a), factor(b, features_b)
        traces = _trace(a, features_a, f1) + _trace(b, features_b, f2)
        distance = float(gap @ gap) + traces - 2.0 * trace_of_root(f1, f2)
    if not math.isfinite(distance):
        raise UserError("the statistics' distance is beyond float64; compute them again")
    return distance


def _trace(side: Moments, features: Floating | None, factor: Float64) -> float:
    """Tr S, from the centred features themselves if they are the factor."""
    centred = features is not None and len(features) <= side.mean.size
    return float(np.sum(factor * factor)) if centred else float(np.trace(side.cov))


def trace_of_root(f1: Float64, f2: Float64) -> float:
    """Tr (S1 S2)**(1/2) from factors (r1, d) and (r2, d) with F^T F = S.

    For two factors of full rank the eigenvalues of P P^T, P = F1 F2^T, are tried first; they take a
    quarter of the time of P's singular values. They square the condition number: an eigenvalue is
    known up to eps * the largest one, so the singular values are used if that could change the sum
    of the roots by more than 1e-9 of itself.
    """
    if not (len(f1) and len(f2)):
        return 0.0
    product = f1 @ f2.T
    if len(f1) == len(f2) == f1.shape[1]:
        values = np.linalg.eigvalsh(product @ product.T)
        if values[0] > 0:
            roots = np.sqrt(values)
            doubt = np.finfo(np.float64).eps * values[-1] * np.sum(0.5 / roots)
            if doubt < _DOUBT * roots.sum():
                return float(roots.sum())
    return float(np.sum(np.linalg.svd(product, compute_uv=False)))


def factor(side: Moments, features: Floating | None = None) -> Float64:
    """F, (r, d) float64, with F^T F = the covariance; r is d or the rank."""
    n, dims = side.n, side.mean.size
    if features is not None and len(features) <= dims:
        centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
        rows: Float64 = centred / np.sqrt(len(features) - 1)
        return rows
    if n is None or n > dims:
        triangle = _cholesky(side.cov)
        if triangle is not None:
            return triangle
    return _from_eigenvectors(side.cov)


def _cholesky(cov: Float64) -> Float64 | None:
    """The upper factor, or None if the matrix is not safely positive definite."""
    try:
        upper = np.linalg.cholesky(cov).T
    except np.linalg.LinAlgError:
        return None
    norm = float(np.abs(cov).sum(axis=0).max())
    reciprocal, _ = lapack.dpocon(np.asfortranarray(upper), norm)
    safe = reciprocal > len(cov) * np.finfo(np.float64).eps
    return np.ascontiguousarray(upper) if safe else None


def _from_eigenvectors(cov: Float64) -> Float64:
    values, vectors = np.linalg.eigh(cov)
    least = max(values[-1], 0.0) * len(cov) * np.finfo(np.float64).eps
    kept = values > least
    rows: Float64 = np.sqrt(values[kept])[:, None] * vectors[:, kept].T
    return rows
