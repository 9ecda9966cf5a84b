"""The sinusoidal embedding of timesteps, computed on the host: both panels get the same bits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from diptych.types import Float32


def time_embedding(t: npt.ArrayLike, ch: int) -> Float32:
    """Sinusoidal embedding of timesteps (B,) -> (B, ch): sines, then cosines, float32.

        frequency[k] = exp(-k log(10000) / (ch / 2 - 1))

    Each operation is rounded to float32, as in the official code: at t = 999 a frequency's last
    bit moves the angle by 6e-5, so roundings are part of the function.
    """
    half = ch // 2
    step = np.float32(math.log(10000) / (half - 1))
    angle_per_t = np.exp((np.arange(half, dtype=np.float32) * -step).astype(np.float64))
    angles = np.asarray(t, dtype=np.float32)[:, None] * angle_per_t.astype(np.float32)[None]
    wide = angles.astype(np.float64)
    embedding: Float32 = np.concatenate([np.sin(wide), np.cos(wide)], axis=1).astype(np.float32)
    return embedding
