"""One pass of images through a network, keeping only the data that the chosen metrics need.

Statistics of even and odd positions are kept apart: their exact sum is the whole, and they are the
halves of the split-half estimate. Features themselves (N x 2,048 x 4 bytes for Inception)
are only kept for metrics that look at single images, or if there are too few images for a regular
covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from diptych.data.notes import note
from diptych.errors import UserError
from diptych.evaluation.feature_network import Extractor, Features
from diptych.evaluation.images import Images
from diptych.evaluation.protocol import Protocol
from diptych.evaluation.statistics import Statistics
from diptych.types import Floating, Int64, Pixels

BATCH = 64
METRICS = ("fid", "kid", "is", "prdc", "sfid", "fid-infinity", "memorization")
WITHOUT_REFERENCE = ("is", "memorization")
KINDS = ("pool", "spatial", "logits")


@dataclass(frozen=True)
class Needs:
    """The statistics and the single rows to keep.

    Attributes:
        statistics: kinds out of "pool" and "spatial".
        rows: kinds out of "pool" and "logits", kept as arrays.
        pixels: whether to keep the images.
    """

    statistics: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    pixels: bool = False


def needs(metrics: Sequence[str], samples: bool) -> Needs:
    """The needs of `metrics` for the samples or, if `samples` is false, for the reference."""
    statistics = [
        kind for metric, kind in (("fid", "pool"), ("sfid", "spatial")) if metric in metrics
    ]
    if "fid-infinity" in metrics and not samples and "pool" not in statistics:
        statistics.append("pool")
    asked = set(metrics)
    pool = {"kid", "prdc"} | ({"fid-infinity", "memorization"} if samples else set())
    rows = ["pool"] if pool & asked else []
    logits = ["logits"] if samples and "is" in asked else []
    return Needs(tuple(statistics), (*rows, *logits), samples and "memorization" in asked)


@dataclass
class Collected:
    """Data kept from N images.

    Attributes:
        num: N.
        halves: statistics of even and odd positions, by kind.
        rows: features in the images' order, by kind.
        pixels: the images (N, H, W, C), if kept.
        classes: number of images for which each class was the likeliest; `confident`: number of
            images with a probability above 0.9. Small classifiers only.
        on_white: number of pictures with transparent pixels, which were put on white.
    """

    num: int
    halves: dict[str, tuple[Statistics, Statistics]]
    rows: dict[str, Floating]
    pixels: Pixels | None = None
    classes: Int64 | None = None
    confident: int = 0
    on_white: int = 0

    def statistics(self, kind: str) -> Statistics:
        """The statistics of all images."""
        even, odd = self.halves[kind]
        return even + odd


def collect(
    images: Images,
    extractor: Extractor,
    protocol: Protocol,
    wanted: Needs,
    *,
    first: int = 0,
    num: int | None = None,
    batch: int = BATCH,
    progress: bool = True,
    title: str = "features",
) -> Collected:
    """Collect the features of `num` images from `first` on.

    Raises:
        UserError: too few or damaged images, or features that the network does not have.
    """
    num = images.count - first if num is None else num
    found = Collected(num, {}, {})
    with tqdm(total=num, unit="image", desc=title, disable=not progress) as bar:
        for positions, pixels in images.batches(batch, first, num):
            if wanted.pixels:
                _keep_pixels(found, positions, pixels, images.name)
            include(
                found, positions, protocol.features(extractor, pixels), wanted, extractor, protocol
            )
            bar.update(len(positions))
    found.on_white = sum(first <= row < first + num for row in images.on_white)
    if found.on_white:
        note(
            f"{images.name}: {found.on_white:,} of {num:,} pictures have transparent pixels, which "
            f"were put on white"
        )
    return found


def include(
    found: Collected,
    positions: Int64,
    features: Features,
    wanted: Needs,
    extractor: Extractor,
    protocol: Protocol,
) -> None:
    """Keep what is wanted of the features of the images at these positions.

    Raises:
        UserError: features that the network does not have, or that are not finite.
    """
    by_kind = {kind: getattr(features, kind) for kind in KINDS}
    for kind in wanted.statistics:
        _add_halves(found, kind, _present(by_kind, kind, extractor), positions)
    small = found.num <= 2 * extractor.dims and "pool" in wanted.statistics
    for kind in dict.fromkeys((*wanted.rows, *(["pool"] if small else []))):
        rows = by_kind[kind]
        kept = found.rows.setdefault(kind, np.empty((found.num, rows.shape[1]), np.float32))
        kept[positions] = rows
    if protocol.resize is None and extractor.dims:
        _count_classes(found, by_kind["logits"])


def _keep_pixels(found: Collected, positions: Int64, pixels: Pixels, name: str) -> None:
    if found.pixels is None:
        found.pixels = np.empty((found.num, *pixels.shape[1:]), np.uint8)
    if pixels.shape[1:] != found.pixels.shape[1:]:
        raise UserError(f"{name}: its images differ in size; memorization compares their pixels")
    found.pixels[positions] = pixels


def _present(by_kind: dict[str, Any], kind: str, extractor: Extractor) -> Floating:
    rows: Floating | None = by_kind[kind]
    if rows is None:
        raise UserError(f"sfid needs --features inception; {extractor.name} has no such features")
    return rows


def _add_halves(found: Collected, kind: str, rows: Floating, positions: Int64) -> None:
    if kind not in found.halves:
        found.halves[kind] = (Statistics(rows.shape[1]), Statistics(rows.shape[1]))
    for half, statistics in enumerate(found.halves[kind]):
        statistics.add(rows[positions % 2 == half])


def _count_classes(found: Collected, logits: Floating) -> None:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probability = shifted.max(axis=1) / shifted.sum(axis=1)
    counts = np.bincount(logits.argmax(axis=1), minlength=logits.shape[1]).astype(np.int64)
    found.classes = counts if found.classes is None else found.classes + counts
    found.confident += int(np.count_nonzero(probability > 0.9))
