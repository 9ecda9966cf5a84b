"""A feature network as the metrics need it; `evaluation.features` has it on either backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from diptych.types import Float32

NO_NETWORK = "pixels"  # named in place of a network by the one metric that can do without


@dataclass(frozen=True)
class Features:
    """A network's outputs for N images.

    Attributes:
        pool: the features, (N, dims) float32.
        logits: (N, K) float32, before softmax.
        spatial: (N, 2023) float32, sFID's features; None if the network has none.
    """

    pool: Float32
    logits: Float32
    spatial: Float32 | None


class Extractor(Protocol):
    """A feature network on one backend; the `sha256` of its weights identifies it in protocols.

    It may also have `resized(images, matrix_h, matrix_w, scale, shift)`, which resizes uint8
    images (N, H, W, C) on its own device, and `products(rows)`, which returns a function from
    rows (B, d) to their inner products (B, N) with rows (N, d), on its own device; they are used
    if present.
    """

    name: str
    backend: str
    device: str
    dims: int
    sha256: str

    def __call__(self, images: Float32) -> Features:
        """The features of images (N, C, H, W) float32, prepared by a `Protocol`."""
