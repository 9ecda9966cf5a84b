"""The metric rung: the same images through each backend's features, statistics and distances.

    own, other        64 keyed MNIST digits, tinted, uint8 (42, 42, 3); and negatives of others
    pixels            28x28 grey: separable bilinear matrices, the mean of the channels, / 255
    pool, logits      of the shipped MNIST classifier, in the backend
    mean, covariance  of the features; Frechet and kernel distance; the logits' Inception Score

The classifier takes one size, so images of any preset are prepared in this way. It replaces
Inception, whose weights may not be on the machine and whose pass takes longer than a ladder. The
reference computes all of it independently in float64: `align/reference/metric.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych import rng
from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Workbench
from diptych.align.reference import metric
from diptych.data import load_dataset
from diptych.evaluation import (
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbours,
    resize,
)
from diptych.evaluation.features import Network, open_extractor
from diptych.evaluation.features.weights_file import classifier_weights
from diptych.evaluation.protocol import NATIVE
from diptych.evaluation.statistics import Statistics
from diptych.network.features.classifier import SIZE
from diptych.types import Array, Float32, Pixels

CLASSIFIER, RESIZE = "mnist", "bilinear"
SETS = ("own", "other")
COUNT, LARGER = 64, 42  # 42 / 28 = 3 / 2: neighbours' weights are exact in float32
SUBSETS, SUBSET_SIZE, SPLITS, HALF = 4, 32, 4, 32


def images(seed: int, which: int) -> Pixels:
    """Set 0, or 1 (negatives): (COUNT, LARGER, LARGER, 3), each digit in a colour of its own."""
    digits = load_dataset("mnist-10k", "train", image_size=SIZE, download=False).images
    draws = rng.stream(seed, "initial_noise", 1 << 23)
    chosen = digits[draws.permutation(len(digits))[which * COUNT : (which + 1) * COUNT], 0]
    tints = draws.uniform(0.4, 1.0, (len(SETS), COUNT, 1, 1, 3))[which]
    edge = (LARGER - SIZE) // 2
    framed = np.pad(chosen, ((0, 0), (edge, edge), (edge, edge)))
    tinted = (framed[..., None] * tints).round().astype(np.uint8)
    return np.asarray(255 - tinted if which else tinted)


def prepare(shown: Pixels) -> Float32:
    """Convert colour images to the classifier's input (N, 1, 28, 28), in 0..1."""
    grey = resize.resize(shown, RESIZE, SIZE).mean(axis=1, keepdims=True, dtype=np.float32)
    return np.asarray(grey * np.float32(NATIVE.scale))


def trace_metric(bench: Workbench) -> None:
    """Trace pixels, features, moments and scores: the backend's, or the reference's own."""
    weights = classifier_weights(CLASSIFIER, None)
    bench.note("classifier", weights.sha256)
    bench.note("images", f"{LARGER}x{LARGER} colour, to {SIZE}x{SIZE} grey, {RESIZE}")
    sets = [images(bench.config.seed, which) for which in range(len(SETS))]
    if bench.panel.name == REFERENCE:
        found = metric.trace(weights.arrays, sets)
    else:
        pixels = [
            bench.moved(prepare(shown), f"metric {name}")
            for name, shown in zip(SETS, sets, strict=True)
        ]
        found = measured(open_extractor(CLASSIFIER, bench.panel.name, bench.spec.device), pixels)
    for name, array in found:
        bench.add(name, array)


def measured(extractor: Network, sets: list[Float32]) -> Iterator[tuple[str, Array]]:
    """The shipped metrics on a backend's features, under the reference's names."""
    features = [extractor(pixels) for pixels in sets]
    moments = []
    for name, pixels, seen in zip(SETS, sets, features, strict=True):
        statistics = Statistics(extractor.dims)
        statistics.add(seen.pool)
        moments.append(statistics.moments())
        yield f"{name}/pixels", pixels
        yield f"{name}/pool", seen.pool
        yield f"{name}/logits", seen.logits
        yield f"{name}/mean", moments[-1].mean
        yield f"{name}/covariance", moments[-1].cov
    (a, b), (first, second) = moments, features
    yield "frechet", np.array(frechet_distance(a, b, first.pool, second.pool))
    # Halves of one set are compared: the other set is so far away that no ball holds any of it.
    halves = first.pool[:HALF], first.pool[HALF:]
    found = neighbours(*halves)
    yield "neighbours", np.array([found.precision, found.recall, found.density, found.coverage])
    kernel = kernel_distance(first.pool, second.pool, SUBSETS, SUBSET_SIZE)
    yield "kernel", np.array([kernel.mean, kernel.std])
    score = inception_score(first.logits, SPLITS)
    yield "inception score", np.array([score.mean, score.std])
