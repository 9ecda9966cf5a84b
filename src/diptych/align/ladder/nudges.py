"""Nudges: each value moved to a neighbouring float32, to measure what one rounding does."""

from __future__ import annotations

import numpy as np

from diptych import rng
from diptych.types import Array

BITS = {"bf16": 7, "tf32": 10}  # of the mantissa of a lower precision, without the leading one


def nudged(values: Array, nudge: int, number: int) -> Array:
    """The values, each moved up or down by one float32, by draws keyed with (nudge, number).

    Left alone if `nudge` is 0, or if they are no float32; so are zeros, values that are not finite,
    and arrays of whole numbers alone: of a mask, whose zeros are compared with 0, or places.
    """
    if not nudge or values.dtype != np.float32 or (values == np.rint(values)).all():
        return values
    up = rng.stream(nudge, "initial_noise", number).random(values.shape) < 0.5
    way = np.where(up, np.float32(np.inf), np.float32(-np.inf)).astype(np.float32)
    kept = (values == 0) | ~np.isfinite(values)
    return np.where(kept, values, np.nextafter(values, way)).astype(np.float32)
