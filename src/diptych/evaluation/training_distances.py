"""Distances of images to the training images, in pixels and in features.

    d(x, t) = the least of |v(x) - t| over the variants v of x

In pixels (of 0..1) the variants are shifts by up to one pixel each way, the edge repeated; if
training mirrored its images, the mirror image of each variant too. Features only have the mirror
image. The panel's device computes all inner products in float32, which choose CANDIDATES nearest
images; their distances are then exact (integers for pixels) or in float64, on the host. So pixel
distances are the same bits in both panels, and copies have distance 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diptych.data.notes import note
from diptych.data.sources.spec import parse, test_split
from diptych.errors import UserError
from diptych.evaluation.collect import Needs
from diptych.evaluation.feature_network import Extractor
from diptych.evaluation.images import Images, open_images
from diptych.evaluation.memorisation import CELLS, SEED, TAIL, Distances, cells_of
from diptych.evaluation.protocol import Protocol
from diptych.evaluation.reference import open_reference
from diptych.evaluation.sets import Settings
from diptych.types import Array, Float32, Float64, Int64, Pixels

SHIFT = 1
CANDIDATES = 4
BLOCK = 512
Products = Callable[[Float32], Float32]


@dataclass(frozen=True)
class Space:
    """Training images as rows, the held-out images' distances to them, and their cells."""

    name: str
    rows: Array
    unit: float  # size of a step of the rows
    variants: Callable[[Pixels, Array | None], Sequence[Array]]  # of images, and their own rows
    products: Products
    training: Pixels
    held_out: Distances | None = None
    cells: Int64 | None = None

    def against(self, held_out: Pixels, known: Array | None = None) -> Space:
        """This space with the held-out images' distances, and cells; see `distances`."""
        cells = cells_of(np.asarray(self.rows, np.float32), len(held_out))
        return replace(self, held_out=self.distances(held_out, known), cells=cells)

    def distances(self, images: Pixels, known: Array | None = None) -> Distances:
        """Distances of images (N, H, W, C); `known`: their rows, if already computed."""
        index, nearest = self.nearest(images, 2, known=known)
        chosen, places = np.unique(index[:, 0], return_inverse=True)
        training = self.training[chosen]
        own = self.nearest(training, 1, own=chosen, known=self.rows[chosen])[1][:, 0]
        return Distances(index[:, 0], nearest, own[places])

    def nearest(
        self,
        images: Pixels,
        count: int = 2,
        own: Int64 | None = None,
        known: Array | None = None,
    ) -> tuple[Int64, Float64]:
        """The nearest rows, (N, count), and their distances; without row own[i] for image i.

        Variants are made for BLOCK images at a time, so that memory does not grow with their number
        times N.
        """
        total, limit = len(images), min(CANDIDATES, len(self.rows) - (own is not None))
        norms = np.einsum("ij,ij->i", self.rows, self.rows, dtype=np.float64)
        norms = (norms * self.unit**2).astype(np.float32)
        index, distance = np.empty((total, count), np.int64), np.empty((total, count))
        for first in range(0, total, BLOCK):
            block = slice(first, first + BLOCK)
            parts = self.variants(images[block], None if known is None else known[block])
            table = np.full((len(parts[0]), len(self.rows)), np.inf, np.float32)
            for part in parts:
                scaled = np.asarray(part, np.float32) * np.float32(self.unit)
                near = self.products(scaled)
                near *= np.float32(-2)
                near += norms
                near += np.einsum("ij,ij->i", scaled, scaled)[:, None]
                np.minimum(table, near, out=table)
            if own is not None:
                table[np.arange(len(table)), own[block]] = np.inf
            found = np.sort(np.argpartition(table, limit - 1, axis=1)[:, :limit], axis=1)
            exact = self._exact(parts, found)
            order = np.argsort(exact, axis=1, kind="stable")[:, :count]
            index[block] = np.take_along_axis(found, order, axis=1)
            distance[block] = np.take_along_axis(exact, order, axis=1)
        return index, distance

    def _exact(self, parts: Sequence[Array], found: Int64) -> Float64:
        """Distances to the rows `found` (B, k)."""
        best = np.full(found.shape, np.inf)
        for column in range(found.shape[1]):
            rows = self.rows[found[:, column]].astype(np.float64)
            for part in parts:
                gap = part.astype(np.float64) - rows
                squared = np.einsum("ij,ij->i", gap, gap)
                np.minimum(best[:, column], squared, out=best[:, column])
        distances: Float64 = np.sqrt(best) * self.unit
        return distances


@dataclass(frozen=True)
class Training:
    """The training images as the metrics need them: in pixels and, if there is a network, in its
    features; and what a protocol says."""

    spaces: tuple[Space, ...]
    facts: dict[str, Any]
    left_out: dict[str, dict[str, int]]


SAME = 0.01  # share of held-out images that may be training images: data sets hold some twice


def open_training(settings: Settings, extractor: Extractor, protocol: Protocol) -> Training:
    """Read training and held-out images, and compute the held-out images' distances.

    Raises:
        UserError: sources missing, the same, of different sizes, or too few images.
    """
    if settings.train is None:
        raise UserError("memorization needs training images: give --train, for example mnist:train")
    held_out, named = settings.held_out, settings.train
    if isinstance(named, Images):
        named = named.name
    elif held_out is None:
        held_out = test_split(parse(str(named)))
    if held_out is None:
        raise UserError(
            f"{named}: has no test split that is known, and memorization compares with "
            f"images that were not trained on; give them with --held-out"
        )
    trained, fresh = (
        source if isinstance(source, Images) else open_images(source, settings.data_dir)
        for source in (settings.train, held_out)
    )
    pixels, others = _pixels(trained), _pixels(fresh)
    check_size(others, pixels, fresh.name)
    facts: dict[str, Any] = {}
    for key, images in (("train", trained), ("held_out", fresh)):
        about = {"name": images.name, "split": images.split, "count": images.count}
        facts |= {f"{key}.{name}": value for name, value in about.items()}
        facts[f"{key}.sha256"] = images.identify()
    if facts["train.sha256"] == facts["held_out.sha256"]:
        raise UserError(f"{fresh.name}: --train and --held-out are the same images")
    facts |= {"train.mirrored": settings.mirrored, "copies.tail": TAIL, "pixels.shift": SHIFT}
    facts |= {"ct.cells": CELLS, "ct.seed": SEED}

    def features(images: Pixels) -> Float32:
        size = settings.batch
        parts = [
            protocol.features(extractor, images[i : i + size]).pool
            for i in range(0, len(images), size)
        ]
        return np.concatenate(parts)

    def rows_of(images: Images) -> Float32:
        needs = Needs((), ("pool",))
        return open_reference(
            images,
            extractor,
            protocol,
            needs,
            batch=settings.batch,
            cache=settings.cache,
            progress=settings.progress,
        ).rows["pool"]

    def feature_variants(images: Pixels, own: Array | None) -> list[Array]:
        found: list[Array] = [features(images) if own is None else own]
        return [*found, features(_mirror(images))] if settings.mirrored else found

    spaces = [pixel_space(pixels, extractor, settings.mirrored).against(others)]
    known = spaces[0].held_out
    assert known is not None
    if same := int(np.sum(known.nearest[:, 0] == 0.0)):
        text = (
            f"{fresh.name}: {same:,} of {fresh.count:,} held-out images are training images, as "
            "they are or moved by a pixel"
        )
        if same > SAME * fresh.count:
            raise UserError(f"{text}; what they show is not what fresh images are; give others")
        note(text)
    if extractor.dims:
        rows = rows_of(trained)
        products = _products(extractor, rows)
        in_features = Space("features", rows, 1.0, feature_variants, products, pixels)
        spaces.append(in_features.against(others, rows_of(fresh)))
    return Training(tuple(spaces), facts, {"train": trained.left_out, "held_out": fresh.left_out})


def pixel_space(training: Pixels, extractor: Extractor, mirrored: bool = False) -> Space:
    """Distances in pixels to training images (N, H, W, C)."""

    def variants(images: Pixels, _: Array | None) -> list[Pixels]:
        return shifted(images) + (shifted(_mirror(images)) if mirrored else [])

    rows = training.reshape(len(training), -1)
    products = _products(extractor, np.asarray(rows, np.float32) / np.float32(255))
    return Space("pixels", rows, 1 / 255, variants, products, training)


def check_size(images: Pixels, training: Pixels, name: str) -> None:
    """Raise UserError if images and training images differ in size or channels."""
    if images.shape[1:] != training.shape[1:]:
        ours, theirs = ("x".join(map(str, a.shape[1:])) for a in (images, training))
        raise UserError(
            f"{name}: the images are {ours}, the training images {theirs}; give --train as the "
            f"model saw it (a packed file: diptych data prepare)"
        )


def _pixels(images: Images) -> Pixels:
    found = list(images.stream())
    if len(found) < 3:
        raise UserError(f"{images.name}: holds {len(found)} images; memorization needs 3 or more")
    if len({image.shape for image in found}) > 1:
        raise UserError(
            f"{images.name}: its images differ in size; memorization compares pixels: give them "
            f"as the model saw them (a packed file: diptych data prepare)"
        )
    return np.stack(found)


def shifted(images: Pixels) -> list[Pixels]:
    """Images (N, H, W, C) shifted by up to SHIFT pixels each way, as rows (N, H * W * C)."""
    height, width = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    steps = range(2 * SHIFT + 1)
    return [
        wide[:, y : y + height, x : x + width].reshape(len(images), -1)
        for y in steps
        for x in steps
    ]


def _mirror(images: Pixels) -> Pixels:
    return np.ascontiguousarray(images[:, :, ::-1])


def _products(extractor: Extractor, rows: Float32) -> Products:
    """Inner products with the rows, on the extractor's device if it can."""
    own = getattr(extractor, "products", None)
    if own is not None:
        found: Products = own(rows)
        return found
    return lambda queries: queries @ rows.T
