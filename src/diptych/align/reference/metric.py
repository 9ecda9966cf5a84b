"""The third implementation of the metrics: pixels, classifier, moments and distances in float64.

    resize     at (i + 1/2) 42 / 28 - 1/2 of a line, between its two neighbours
    network    six convolutions, each a sum over nine shifted images, relu; the mean; one product
    Frechet    |m1 - m2|**2 + |X|**2 + |Y|**2 - 2 |X Y^T|_*, X and Y centred features / sqrt(n - 1)
    neighbours shares of images inside the balls of the third neighbour
    kernel     (x.y / d + 1)**3, means over the pairs, without an image's pair with itself
    score      exp(entropy of the mean of p - mean entropy of p)

It uses NumPy alone, and no code of `diptych.evaluation` or of a backend. Definitions without
arithmetic are shared: the plan, the weights, and the shuffles by RandomState(2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from diptych.network.features.classifier import CONVS, SIZE
from diptych.network.features.conv import Conv
from diptych.types import Array, Float64, Pixels

Arrays = Mapping[str, Array]
SUBSETS, SUBSET_SIZE, SPLITS, SEED = 4, 32, 4, 2020


def trace(arrays: Arrays, sets: Sequence[Pixels]) -> Iterator[tuple[str, Float64]]:
    """Yield the name and array of everything that the rung compares, in its order.

    Args:
        arrays: the classifier's weights, by their names in its plan.
        sets: the two sets of images, (N, H, W, 3) uint8.
    """
    pools, first = [], None
    for name, images in zip(("own", "other"), sets, strict=True):
        pixels = small(images)
        pool, logits = classify(pixels, arrays)
        centred = pool - pool.mean(axis=0)
        yield f"{name}/pixels", pixels
        yield f"{name}/pool", pool
        yield f"{name}/logits", logits
        yield f"{name}/mean", pool.mean(axis=0)
        yield f"{name}/covariance", np.einsum("ni,nj->ij", centred, centred) / (len(pool) - 1)
        pools.append(pool)
        first = logits if first is None else first
    assert first is not None
    yield "frechet", np.array(frechet(*pools))
    half = len(pools[0]) // 2
    yield "neighbours", neighbours(pools[0][:half], pools[0][half:])
    yield "kernel", kernel(*pools)
    yield "inception score", score(first)


def small(images: Pixels) -> Float64:
    """Resize to (N, 1, 28, 28) in 0..1: grey first, then one axis at a time."""
    grey = images.astype(np.float64).sum(axis=3) / 3.0
    for _ in range(2):  # rows, then columns: each pass transposes
        n = grey.shape[1]
        at = np.maximum((np.arange(SIZE) + 0.5) * n / SIZE - 0.5, 0.0)
        low = np.floor(at).astype(int)
        share = (at - low)[:, None]
        upper = grey[:, np.minimum(low + 1, n - 1)]
        grey = (grey[:, low] * (1.0 - share) + upper * share).transpose(0, 2, 1)
    return np.asarray(grey[:, None] / 255.0)


def classify(pixels: Float64, arrays: Arrays) -> tuple[Float64, Float64]:
    """Features (N, 96) and logits (N, 10)."""
    x = 2.0 * pixels - 1.0
    for conv in CONVS:
        weight, bias = arrays[f"{conv.name}.weight"], arrays[f"{conv.name}.bias"]
        x = np.maximum(convolve(x, conv, weight.astype(np.float64)) + bias[:, None, None], 0.0)
    pool = x.mean(axis=(2, 3))
    return pool, pool @ arrays["fc.weight"].astype(np.float64).T + arrays["fc.bias"]


def convolve(x: Float64, conv: Conv, weight: Float64) -> Float64:
    """Convolve images padded with zeros."""
    (above, left), step = conv.pad, conv.stride
    padded = np.pad(x, ((0, 0), (0, 0), (above, above), (left, left)))
    height = (padded.shape[2] - conv.kernel[0]) // step + 1
    width = (padded.shape[3] - conv.kernel[1]) // step + 1
    total = np.zeros((conv.out_ch, len(x), height, width))
    for i in range(conv.kernel[0]):
        for j in range(conv.kernel[1]):
            seen = padded[:, :, i : i + step * height : step, j : j + step * width : step]
            total += np.tensordot(weight[:, :, i, j], seen, axes=(1, 1))
    return total.transpose(1, 0, 2, 3)


def frechet(a: Float64, b: Float64) -> float:
    """The squared distance of the two Gaussians with the features' moments."""
    x, y = ((f - f.mean(axis=0)) / np.sqrt(len(f) - 1) for f in (a, b))
    gap = a.mean(axis=0) - b.mean(axis=0)
    cross = np.linalg.norm(x @ y.T, ord="nuc")
    return float((gap**2).sum() + (x**2).sum() + (y**2).sum() - 2.0 * cross)


def neighbours(real: Float64, drawn: Float64) -> Float64:
    """Precision, recall, density and coverage with the third neighbour's balls."""

    def apart(a: Float64, b: Float64) -> Float64:
        return np.asarray(np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2)))

    # Index 3, because each image is its own nearest at distance 0.
    own, theirs = (np.sort(apart(rows, rows), axis=1)[:, 3] for rows in (real, drawn))
    between = apart(real, drawn)
    held, holds = between <= own[:, None], between <= theirs[None]
    return np.array(
        [
            held.any(axis=0).mean(),
            holds.any(axis=1).mean(),
            held.sum() / (3 * len(drawn)),
            held.any(axis=1).mean(),
        ]
    )


def kernel(a: Float64, b: Float64) -> Float64:
    """Mean and standard deviation of the unbiased estimate over the subsets."""
    draws, found = np.random.RandomState(SEED), []
    for _ in range(SUBSETS):
        x = a[draws.choice(len(a), SUBSET_SIZE, replace=False)]
        y = b[draws.choice(len(b), SUBSET_SIZE, replace=False)]
        pairs = {
            key: (np.einsum("id,jd->ij", p, q) / a.shape[1] + 1.0) ** 3
            for key, (p, q) in {"xx": (x, x), "yy": (y, y), "xy": (x, y)}.items()
        }
        others = ~np.eye(SUBSET_SIZE, dtype=bool)
        within = pairs["xx"][others].mean() + pairs["yy"][others].mean()
        found.append(within - 2.0 * pairs["xy"].mean())
    return np.array([np.mean(found), np.std(found)])


def score(logits: Float64) -> Float64:
    """Mean and standard deviation of the Inception Score over the splits."""
    shuffled = logits[np.random.RandomState(SEED).permutation(len(logits))]
    odds = np.exp(shuffled - shuffled.max(axis=1, keepdims=True))
    found = []
    for p in np.split(odds / odds.sum(axis=1, keepdims=True), SPLITS):
        found.append(np.exp(_entropy(p.mean(axis=0)) - np.mean([_entropy(row) for row in p])))
    return np.array([np.mean(found), np.std(found)])


def _entropy(p: Float64) -> float:
    held = p[p > 0]
    return float(-(held * np.log(held)).sum())
