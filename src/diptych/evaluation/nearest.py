"""Nearest training images of each sample: is the sample new, or was it memorised?

    pixels      d(a, b) = sqrt(sum over pixels of ((a - b) / 255)^2)
    features    d(a, b) = |f(a) - f(b)|, f the classifier of the data set (mnist, fashion_mnist)

Pixel distances are computed in integers, so that equal images have distance exactly 0. If training
mirrored its images, so does the search. Pixel distances say little about images shifted by a pixel;
features tolerate shifts, but only know digits and clothes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych.backends.protocol import Backend
from diptych.config.load import Config
from diptych.data import Dataset, load_configured
from diptych.errors import UserError
from diptych.evaluation.features.extractor import classifier_of, open_extractor
from diptych.figures.sheets import save_sheet
from diptych.training.batches import held_out_rows
from diptych.types import Float64, Int64, Pixels

ENTRIES = 2**22  # most numbers of a block of images: its pixels, or its distances
ROWS = 10
METRICS = ("pixels", "features")
Distances = Callable[[Pixels], Float64]


@dataclass(frozen=True)
class Nearest:
    """A search: the training images, the number of neighbours, and the distance.

    held_out: rows of the data that were not trained on, and are no neighbours.
    """

    data: Dataset
    count: int = 5
    by: str = "pixels"
    mirrored: bool = False
    held_out: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True)
class Found:
    """Neighbours of N samples, the nearest first.

    Attributes:
        index: (N, k) int64, into the training set.
        distance: (N, k) float64.
    """

    index: Int64
    distance: Float64


def make_nearest(
    config: Config, count: int = 5, by: str = "pixels", data_dir: Path | None = None
) -> Nearest:
    """The search among the images that a model was trained on.

    Raises:
        UserError: an unknown distance, no features for this data, or missing images.
    """
    if by not in METRICS:
        raise UserError(f"--nearest-by is '{by}'; neighbours are found by pixels or features")
    if not 1 <= count <= 20:
        raise UserError(f"--neighbours is {count}; it must be 1 to 20")
    data = load_configured(config.data, data_dir)
    if by == "features" and classifier_of(data.name, data.images.shape[1:]) is None:
        raise UserError(
            f"there is no classifier of {data.name} at {config.data.size_text}; "
            f"use --nearest-by pixels"
        )
    held_out = held_out_rows(config, len(data))
    trained = len(data) - len(held_out)
    if count > trained:
        raise UserError(
            f"--neighbours is {count}, but {trained} image(s) were trained on; give at most that"
        )
    return Nearest(data, count, by, config.data.random_flip, held_out)


def search(nearest: Nearest, samples: Pixels, backend: Backend) -> Found:
    """The nearest training images of samples (N, C, H, W) uint8.

    Args:
        nearest: the search.
        samples: the generated images.
        backend: computes the features; unused for pixels.
    """
    distances = (
        by_pixels(samples)
        if nearest.by == "pixels"
        else _by_features(samples, _extractor(nearest, backend))
    )
    index = np.zeros((len(samples), 0), np.int64)
    found = np.zeros((len(samples), 0))
    widest = max(len(samples), samples[0].size)
    for first, block in _blocks(nearest, max(1, ENTRIES // widest)):
        squared = distances(block)
        numbers = np.arange(first, first + len(block))
        squared[:, np.isin(numbers, nearest.held_out)] = np.inf
        index = np.concatenate([index, np.broadcast_to(numbers, squared.shape)], axis=1)
        found = np.concatenate([found, squared], axis=1)
        order = np.argsort(found, axis=1, kind="stable")
        order = _first_of_each(index, order, nearest.count) if nearest.mirrored else order
        order = order[:, : nearest.count]
        index = np.take_along_axis(index, order, axis=1)
        found = np.take_along_axis(found, order, axis=1)
    return Found(index, np.sqrt(found))


def _blocks(nearest: Nearest, size: int) -> Iterator[tuple[int, Pixels]]:
    images = nearest.data.images
    for mirrored in (False, True)[: 1 + nearest.mirrored]:
        for first in range(0, len(images), size):
            block = images[first : first + size]
            yield first, block[..., ::-1] if mirrored else block


def _first_of_each(index: Int64, order: Int64, count: int) -> Int64:
    """The order with the farther of an image and its mirror image put last."""
    kept = np.empty((len(order), min(count, order.shape[1])), np.int64)
    for row, places in enumerate(order):
        _, firsts = np.unique(index[row, places], return_index=True)
        best = places[np.sort(firsts)]
        kept[row] = np.concatenate([best, places])[: kept.shape[1]]
    return kept


def by_pixels(samples: Pixels) -> Distances:
    """Squared distances (N, M) to a block of M images; exact, as sums of integers."""
    rows = samples.reshape(len(samples), -1).astype(np.float64)
    norms = np.einsum("ij,ij->i", rows, rows)

    def to(block: Pixels) -> Float64:
        others = block.reshape(len(block), -1).astype(np.float64)
        squared: Float64 = rows @ others.T
        squared *= -2.0
        squared += norms[:, None]
        squared += np.einsum("ij,ij->i", others, others)
        squared /= 255.0**2
        return squared

    return to


def _by_features(samples: Pixels, features: Callable[[Pixels], Float64]) -> Distances:
    rows = features(samples)

    def to(block: Pixels) -> Float64:
        others = features(block)
        return np.stack([((others - row) ** 2).sum(axis=1) for row in rows])

    return to


def _extractor(nearest: Nearest, backend: Backend) -> Callable[[Pixels], Float64]:
    name = classifier_of(nearest.data.name, nearest.data.images.shape[1:])
    network = open_extractor(str(name), backend.name, backend.device)

    def features(images: Pixels) -> Float64:
        prepared = np.ascontiguousarray(images, np.float32) / np.float32(255)
        return network(prepared).pool.astype(np.float64)

    return features


def save_nearest(out: Path, nearest: Nearest, found: Found, samples: Pixels) -> dict[str, Any]:
    """Write `nearest.png`: the first samples, each with its neighbours; return the record."""
    shown = samples[:ROWS]
    cells = [
        np.stack([sample, *nearest.data.images[index]])
        for sample, index in zip(shown, found.index, strict=False)
    ]
    words = [["sample", *(f"{d:.2f}" for d in row)] for row in found.distance[: len(shown)]]
    top = ["", *(f"nearest {k + 1}" for k in range(nearest.count))]
    left = [str(i) for i in range(len(shown))]
    save_sheet(out / "nearest.png", np.stack(cells), top=top, left=left, under=words)
    return {
        "data": nearest.data.name,
        "split": nearest.data.split,
        "data_sha256": nearest.data.sha256,
        "images": len(nearest.data.images) - len(nearest.held_out),
        "left_out": nearest.data.left_out,
        "mirrored": nearest.mirrored,
        "by": nearest.by,
        "distance": "L2 of pixels / 255" if nearest.by == "pixels" else "L2 of features",
        "index": found.index.tolist(),
        "distances": found.distance.tolist(),
    }
