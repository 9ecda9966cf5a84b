"""The test of a guess: does one changed computation explain the error of a port?"""

from __future__ import annotations

import numpy as np

from diptych.types import Array

EXPLAINED = 0.01  # of the error that may be left
LEAST = 3e-6  # relative: a few roundings


def explains(y: Array, z: Array, guess: Array) -> bool:
    """True if `guess` is what the port gave (`z`) where the reference gives `y`."""
    if guess.shape != z.shape or not np.isfinite(guess).all():
        return False
    scale = max(float(np.abs(y).max()), 1e-300)
    error, left = float(np.abs(z - y).max()), float(np.abs(z - guess).max())
    return left <= EXPLAINED * error or (left <= LEAST * scale and left < 0.2 * error)
