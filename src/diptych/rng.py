"""Keyed random streams: every draw is a pure function of (seed, purpose, index).

Philox-4x64-10 (Salmon et al. 2011) is a counter-based generator: key = (seed, purpose),
counter = (0, 0, b, a); the two low words count the draws within a stream. No generator carries
state from step to step: a batch depends only on its step, an image only on its index, and a
resumed run needs no saved generator.

All draws are made on the host, so both frameworks see the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diptych.types import Float32, Int64, Pixels

# These numbers are part of every stream's identity: never change or reuse one.
PURPOSES = {
    "order": 1,
    "timestep": 2,
    "training_noise": 3,
    "flip": 4,
    "dropout": 5,
    "initial_noise": 6,
    "solver_noise": 7,
    "weights": 8,
    "dequantization": 10,
    "label_dropout": 20,
    "own_network": 30,
}


def stream(seed: int, purpose: str, a: int = 0, b: int = 0) -> np.random.Generator:
    """The generator of one stream; equal arguments give equal draws, in any process.

    Args:
        seed: the run's or the sampler's seed, 0 .. 2**63 - 1.
        purpose: a key of `PURPOSES`.
        a: first index (a step, an epoch or an image), 0 or more.
        b: second index (a solver step or a layer), 0 or more.
    """
    key = np.array([seed, PURPOSES[purpose]], dtype=np.uint64)
    counter = np.array([0, 0, b, a], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))


def normal(seed: int, purpose: str, shape: Sequence[int], a: int = 0, b: int = 0) -> Float32:
    """Standard normal noise of the given shape from one stream, float32."""
    return stream(seed, purpose, a, b).standard_normal(tuple(shape), dtype=np.float32)


def normal_per_image(
    seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
) -> Float32:
    """Noise whose row i depends only on image `images[i]`: (len(images), *shape), float32."""
    out = np.empty((len(images), *shape), dtype=np.float32)
    for row, image in enumerate(images):
        stream(seed, purpose, image, step).standard_normal(out=out[row], dtype=np.float32)
    return out


def antithetic_timesteps(seed: int, step: int, batch: int, timesteps: int) -> Int64:
    """Timesteps of one batch of n: n // 2 + 1 uniform draws and their mirror images, cut to n.

    Returns (batch,) int64 in 0 .. timesteps - 1. Source: the official DDIM training loop.
    """
    draws: Int64 = stream(seed, "timestep", step).integers(0, timesteps, size=batch // 2 + 1)
    both: Int64 = np.concatenate([draws, timesteps - 1 - draws])
    return both[:batch]


def keep_mask(seed: int, step: int, layer: int, shape: Sequence[int], rate: float) -> Pixels:
    """Dropout mask of one layer in one training step, uint8: 1 keeps a unit, 0 drops it.

    A unit is dropped if a 16-bit draw is below round(rate * 65536). The rate is exact to
    1 in 131,072, and the draw costs a quarter of a float draw.
    """
    draws = stream(seed, "dropout", step, layer).integers(0, 65536, size=shape, dtype=np.uint16)
    return (draws >= round(rate * 65536)).view(np.uint8)
