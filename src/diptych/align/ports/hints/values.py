"""Hints that the values alone give: another weight, few digits, a factor, another order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych.align.ports.guesses import LEAST, explains
from diptych.align.ports.hints.case import Case, Hint
from diptych.types import Array


def weight(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The weight turned, or another weight of the reference in its place."""
    if y.ndim == 2 and y.shape[0] == y.shape[1] and np.array_equal(z, y.T):
        yield {"key": "transposed"}
    for name, other in case.weights.items():
        if name != case.tensor and other.shape == z.shape and np.array_equal(z, other):
            yield {"key": "another_weight", "name": name}
            return


def digits(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Half precision: what came out has few bits, or the error is theirs everywhere."""
    scale = max(float(np.abs(y).max()), 1e-300)
    error = float(np.abs(z - y).max()) / scale
    for name, bits in (("bfloat16", 7), ("float16", 10)):
        if error < 8 * 2.0**-bits and np.array_equal(z, _rounded(z, bits)) and z.size > 1:
            yield {"key": "dtype", "dtype": name}
            return
    x, w = case.given(), case.weight("weight")
    if x is not None and w is not None and w.ndim == 2 and "linear" in case.kind:
        b = case.weight("bias")
        for name, bits in (("bfloat16", 7), ("float16", 10)):
            guess = _rounded(x, bits) @ _rounded(w, bits).T + (0 if b is None else b)
            if guess.shape == z.shape and np.abs(guess - z).max() < 0.3 * np.abs(z - y).max():
                yield {"key": "dtype", "dtype": name}
                return
    if (
        case.alone
        and 2.0**-13 < error < 2.0**-6
        and np.corrcoef(z.ravel(), y.ravel())[0, 1] > 0.9999
        and z.size > 2
    ):
        yield {"key": "dtype_like", "error": error}


def _rounded(values: Array, bits: int) -> Array:
    """The values with so many bits of mantissa."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent)


def scale(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """A constant factor."""
    square = float(np.sum(y * y))
    factor = float(np.sum(y * z)) / square if square else 1.0
    if (y.size > 2 and abs(factor - 1) > 1e-4 and explains(y, z, factor * y)) or (
        y.size == 1 and square
    ):
        yield {"key": "factor", "factor": factor}


def order(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The same values in another order: a reshape or a permutation."""
    scale = max(float(np.abs(y).max()), 1e-300)
    a, b = np.sort(y.ravel()), np.sort(z.ravel())
    if y.size > 4 and np.abs(a - b).max() < LEAST * scale and np.abs(y - z).max() > 1e-3 * scale:
        yield {"key": "order"}


def gradient(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """No gradient at all, or a constant factor."""
    if not np.any(z) and np.any(y):
        yield {"key": "no_gradient"}
    else:
        yield from scale(case, y, z)
