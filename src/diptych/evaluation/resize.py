"""The resizes to 299 x 299 of the three reference tools, as matrices.

Each is linear and separable: out = W_h x W_w^T with W (299, n), so two matrix products do it,
in NumPy and in both frameworks alike. For an output pixel i of 299 and an input of n pixels:

    bilinear        src = (i + 1/2) n / 299 - 1/2, clamped to the image, two weights     pytorch-fid
    tf1-bilinear    src = i n / 299, the upper neighbour clamped, two weights         torch-fidelity
    pil-bicubic     cubic a = -1/2 around (i + 1/2) n / 299, widened by n / 299 if that
                    makes the image smaller, weights scaled to sum 1                       clean-fid

The last one overshoots; clean-fid clips its result to 0..255 (`Protocol.clip`) and does not round.
"""

from __future__ import annotations

import functools

import numpy as np

from diptych.types import Float32, Float64, Pixels

SIZE = 299


@functools.lru_cache(maxsize=64)
def matrix(kind: str, n: int, size: int = SIZE) -> Float32:
    """The matrix (size, n), float32, read-only, of the resize `kind` in RESIZES."""
    made = RESIZES[kind](n, size).astype(np.float32)
    made.flags.writeable = False
    return made


def resize(images: Pixels, kind: str, size: int = SIZE) -> Float32:
    """Images (N, H, W, C) uint8 as (N, C, size, size) float32; bicubic overshoots 0..255."""
    _, height, width, _ = images.shape
    planes = images.transpose(0, 3, 1, 2).astype(np.float32)
    rows, columns = matrix(kind, height, size), matrix(kind, width, size)
    resized: Float32 = rows @ (planes @ columns.T)
    return resized


def bilinear(n: int, size: int) -> Float64:
    """Half-pixel centres, no antialiasing."""
    half = np.float32(0.5)
    at = (np.arange(size, dtype=np.float32) + half) * _step(n, size) - half
    return _two_weights(np.maximum(at, np.float32(0)), n)


def tf1_bilinear(n: int, size: int) -> Float64:
    """TensorFlow 1's default: left-aligned corners, no half pixel."""
    return _two_weights(np.arange(size, dtype=np.float32) * _step(n, size), n)


def _step(n: int, size: int) -> np.float32:
    """Input pixels per output pixel, in float32 as in the tools: at 400 pixels that
    moves a source position by 2e-5, and a hard edge by 5e-3 of 255."""
    return np.float32(n) / np.float32(size)


def _two_weights(at: Float32, n: int) -> Float64:
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    high = np.minimum(low + 1, n - 1)
    weight = at - low
    rows = np.arange(len(at))
    made = np.zeros((len(at), n))
    np.add.at(made, (rows, low), 1.0 - weight)
    np.add.at(made, (rows, high), weight)
    return made


def pil_bicubic(n: int, size: int) -> Float64:
    """Pillow's BICUBIC: support 2, widened for smaller outputs, outside pixels left out."""
    scale = n / size
    widened = max(scale, 1.0)
    support = 2.0 * widened
    made = np.zeros((size, n))
    for i in range(size):
        centre = (i + 0.5) * scale
        # int() truncates, as Pillow does; both ends are inside the image.
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n)
        weights = _cubic((np.arange(first, last) - centre + 0.5) / widened)
        made[i, first:last] = weights / weights.sum()
    return made


def _cubic(x: Float64) -> Float64:
    """The kernel of Keys (1981), a = -1/2."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


RESIZES = {"bilinear": bilinear, "tf1-bilinear": tf1_bilinear, "pil-bicubic": pil_bicubic}
