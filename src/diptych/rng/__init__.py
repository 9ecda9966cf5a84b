"""Keyed random streams: every draw is a pure function of (seed, purpose, index).

Philox-4x64-10 (Salmon et al. 2011) is a counter-based generator: key = (seed, purpose),
counter = (0, 0, b, a); the two low words count the draws within a stream. No generator carries
state from step to step: a batch depends only on its step, an image only on its index, and a
resumed run needs no saved generator.

Both frameworks see the same bits, in one of two ways:

    host     NumPy draws them here, normals by its ziggurat
    keyed    the device draws them, with the bits of `keyed_normal` and `keep_mask` here

A keyed normal is a function of 32 bits h, computed in integers; nothing is rounded on the way, so
that no compiler, fused multiply-add or order of execution can change a bit:

    s = h | 1,  q = s / 2^32 in (0, 1),  |z| = sqrt(2) erfcinv(q),  negative if h is odd
    |z| = (A[i] - (B[i] t + 2^22 >> 23)) / 2^28,    one line for each of 256 parts of an octave of s

float64(s) is exact, and its bits hold the octave and part i and the place t within it, without a
logarithm. The last two operations, integer to float32 and a power of two, round at most once, to
nearest. Element k of a stream has half k of its words, so a stream may be entered anywhere.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from diptych.types import Float32, Int64, Pixels

Noise = Literal["host", "keyed"]
NOISES = ("host", "keyed")

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
    "held_out": 40,
    "validation_noise": 41,
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
    seed: int,
    purpose: str,
    images: Sequence[int],
    shape: Sequence[int],
    step: int = 0,
    noise: Noise = "host",
) -> Float32:
    """Noise whose row i depends only on image `images[i]`: (len(images), *shape), float32."""
    out = np.empty((len(images), *shape), dtype=np.float32)
    for row, image in enumerate(images):
        if noise == "keyed":
            out[row] = keyed_normal(seed, purpose, shape, image, step)
            continue
        stream(seed, purpose, image, step).standard_normal(out=out[row], dtype=np.float32)
    return out


def antithetic_timesteps(seed: int, step: int, batch: int, timesteps: int) -> Int64:
    """Timesteps of one batch of n: n // 2 + 1 uniform draws and their mirror images, cut to n.

    Returns (batch,) int64 in 0 .. timesteps - 1. Source: the official DDIM training loop.
    """
    draws: Int64 = stream(seed, "timestep", step).integers(0, timesteps, size=batch // 2 + 1)
    both: Int64 = np.concatenate([draws, timesteps - 1 - draws])
    return both[:batch]


def keep_mask(
    seed: int, step: int, layer: int, shape: Sequence[int], rate: float, first: int = 0
) -> Pixels:
    """Dropout mask of one layer in one training step, uint8: 1 keeps a unit, 0 drops it.

    A unit is dropped if a 16-bit draw is below `dropped_below(rate)`. The rate is exact to
    1 in 131,072, and the draw costs a quarter of a float draw.

    Args:
        first: the stream's element at which the mask starts; `shape[1:]` elements are one image.
    """
    draws = words(seed, "dropout", step, layer, first, math.prod(shape), "<u2").reshape(shape)
    return (draws >= dropped_below(rate)).view(np.uint8)


def dropped_below(rate: float) -> int:
    """The 16-bit draws below this number drop a unit."""
    return round(rate * 65536)


def words(
    seed: int, purpose: str, a: int, b: int, first: int, count: int, dtype: str
) -> npt.NDArray[np.unsignedinteger]:  # type: ignore[type-arg]
    """The stream's words, cut into little-endian integers: those from `first` on, `count` of them.

    Args:
        dtype: "<u8", "<u4" or "<u2".
    """
    block, skipped = divmod(first, 32 // np.dtype(dtype).itemsize)
    key = np.array([seed, PURPOSES[purpose]], dtype=np.uint64)
    counter = np.array([block, 0, b, a], dtype=np.uint64)
    needed = -(-(skipped + count) * np.dtype(dtype).itemsize // 8)
    raw = np.random.Philox(counter=counter, key=key).random_raw(needed)
    return raw.astype("<u8", copy=False).view(dtype)[skipped : skipped + count]


def keyed_normal(
    seed: int, purpose: str, shape: Sequence[int], a: int = 0, b: int = 0, first: int = 0
) -> Float32:
    """Standard normal noise of the given shape, float32, whose bits any device can draw.

    Largest absolute value: 6.338.

    Args:
        first: the stream's element at which it starts; rows of a batch have their own elements.
    """
    halves = words(seed, purpose, a, b, first, math.prod(shape), "<u4")
    out = np.empty(halves.shape, dtype=np.float32)
    for start in range(0, halves.size, _PIECE):
        piece = slice(start, start + _PIECE)
        out[piece] = _normal_of(halves[piece])
    return out.reshape(tuple(shape))


def _normal_of(halves: npt.NDArray[np.uint32]) -> Float32:
    # In place: 3.3 ms for 393,216 normals, about the ziggurat's time; otherwise several times that.
    values, slopes = _wide_table()
    bits = (halves | np.uint32(1)).astype(np.float64).view(np.int64)
    part = bits >> 44
    part -= 1023 << 8
    bits >>= 21
    bits &= 0x7FFFFF
    bits *= slopes.take(part)
    bits += 1 << 22
    bits >>= 23
    z = values.take(part)
    z -= bits
    normal: Float32 = z.astype(np.float32)
    normal *= np.float32(2.0**-28)
    sign = normal.view(np.uint32)
    sign ^= halves << np.uint32(31)
    normal += np.float32(0.0)  # -0 becomes 0, the one value that integers have
    return normal


class Blocks(NamedTuple):
    """Start of device draws: key and counter of a block of 4 words, but for the first index."""

    seed: int
    purpose: str
    b: int
    block: int

    def integers(self, *others: int) -> Int64:
        """[seed, purpose's number, b, block, *others] as int64 with the bits of uint64."""
        values = (self.seed, PURPOSES[self.purpose], self.b, self.block, *others)
        return np.array([signed(value) for value in values], dtype=np.int64)


def signed(value: int) -> int:
    """The int64 with the bits of a word."""
    return (value + 2**63) % 2**64 - 2**63


_PIECE = 1 << 15  # elements whose intermediate arrays stay in the cache
# Shipped as bytes and never recomputed: another version of SciPy could round an entry otherwise.
_TABLE_SHA256 = "b2b8c8680a5f7a40ea2439f497d9d08d864a294c7673c60d0ce26dd6f73fc24e"


@functools.cache
def normal_table() -> npt.NDArray[np.int32]:
    """(8192, 2) int32: A and B of each line, in units of 2^-28. The array must not be changed.

    Least-squares lines of sqrt(2) erfcinv(q) over parts [1 + j / 256, 1 + (j + 1) / 256) 2^(k - 32)
    of q, in the order of k = 0 .. 31, j = 0 .. 255.
    """
    table: npt.NDArray[np.int32] = np.load(Path(__file__).with_name("normal_table.npy"))
    if hashlib.sha256(table.tobytes()).hexdigest() != _TABLE_SHA256:
        raise RuntimeError("diptych.rng: normal_table.npy is damaged; reinstall Diptych")
    return table


@functools.cache
def _wide_table() -> tuple[Int64, Int64]:
    values, slopes = np.ascontiguousarray(normal_table().T.astype(np.int64))
    return values, slopes
