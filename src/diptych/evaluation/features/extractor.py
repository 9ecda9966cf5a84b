"""A feature network on one backend, as the metrics use it: images in, features out.

    inception      float32 (N, 3, 299, 299), about [-1, 1]   -> pool 2048, logits 1008, spatial 2023
    mnist          float32 (N, 1, 28, 28) in [0, 1]          -> pool 96, logits 10
    fashion_mnist  the same

Images go to the device in batches of a fixed size, whatever the caller's, so that memory is bounded
and a feature depends on its own image only, except for rounding in the last batch. Inception's
logits leave out the last bias (the Inception Score of the 2015 graph); a classifier's include it,
so that their softmax gives its probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends
from diptych.errors import UserError, nearest
from diptych.evaluation.feature_network import NO_NETWORK, Features
from diptych.evaluation.features.weights_file import classifier_weights, inception_weights
from diptych.network.features import classifier as classifier_plan
from diptych.network.features import inception as inception_plan
from diptych.types import Array, Float32, Floating, Pixels

NAMES = ("inception", *classifier_plan.SHIPPED)


def classifier_of(source: str, shape: Sequence[int]) -> str | None:
    """The classifier in the package of a data source (`mnist`, `mnist-10k`, `mnist:train`).

    Args:
        source: a name in the syntax of data sources.
        shape: of an image, (C, H, W); the classifiers take (1, 28, 28) alone.
    """
    name = source.partition(":")[0].removesuffix("-10k")
    return name if name in classifier_plan.SHIPPED and tuple(shape) == (1, 28, 28) else None


BATCHES = {"inception": 32}  # classifiers: 256


class Network:
    """An `evaluation.feature_network.Extractor`; its `sha256` is that of the weights file."""

    def __init__(
        self, name: str, panel: backends.Backend, network: Any, sha256: str, dims: int
    ) -> None:
        self.name, self.backend, self.device = name, panel.name, panel.device
        self.dims, self.sha256 = dims, sha256
        self._panel, self._network = panel, network

    def __call__(self, images: Float32) -> Features:
        """The features of preprocessed images; ranges and sizes as in the module's table.

        Raises:
            ValueError: wrong shape or type.
        """
        size, channels = (299, 3) if self.name == "inception" else (28, 1)
        wanted = (channels, size, size)
        if images.ndim != 4 or images.shape[1:] != wanted or images.dtype != np.float32:
            raise ValueError(
                f"{self.name}: images are {images.dtype} {images.shape}, expected float32 "
                f"(N, {channels}, {size}, {size})"
            )
        return self._batches(images, lambda part: self._network(self._panel.array(part)))

    def resized(
        self,
        images: Pixels,
        matrix_h: Floating,
        matrix_w: Floating,
        scale: float,
        shift: float,
        *,
        limits: tuple[float, float] = (-1e9, 1e9),
    ) -> Features:
        """The features of clip(W_h x W_w^T) * scale + shift, for Inception only.

        Args:
            images: uint8 (N, H, W, C); C = 1 is repeated to three channels.
            matrix_h, matrix_w: (299, H) and (299, W), used in float32.
            scale, shift: map pixels to Inception's range.
            limits: range to which the resized pixels are clipped before scaling.

        Raises:
            ValueError: wrong network, shape or type.
        """
        if self.name != "inception":
            raise ValueError(f"{self.name}: takes 28x28 images as they are; only inception resizes")
        fits = images.ndim == 4 and images.dtype == np.uint8 and images.shape[3] in (1, 3)
        height, width = images.shape[1:3] if fits else (0, 0)
        if not fits or (matrix_h.shape, matrix_w.shape) != ((299, height), (299, width)):
            raise ValueError(
                f"inception: images {images.dtype} {images.shape} with matrices {matrix_h.shape}, "
                f"{matrix_w.shape}; expected uint8 (N, H, W, 1 or 3), (299, H), (299, W)"
            )
        put = self._panel.array
        rows, columns = (put(np.asarray(m, np.float32)) for m in (matrix_h, matrix_w))
        numbers = float(scale), float(shift), (float(limits[0]), float(limits[1]))
        return self._batches(
            images, lambda part: self._network.resized(put(part), rows, columns, *numbers)
        )

    def products(self, rows: Float32) -> Callable[[Float32], Float32]:
        """Inner products with rows (N, d), computed on the device.

        Returns:
            A function from rows (B, d) to (B, N), float32; `rows` go to the device once.
        """
        panel, others = self._panel, self._panel.array(rows)

        def of(queries: Float32) -> Float32:
            return panel.numpy(panel.inner_products(panel.array(queries), others))

        return of

    def _batches(self, images: Array, run: Callable[[Any], Any]) -> Features:
        if len(images) == 0:
            raise ValueError(f"{self.name}: no images")
        size = BATCHES.get(self.name, 256)
        parts = [self._read(run(images[i : i + size])) for i in range(0, len(images), size)]
        pool, logits, spatial = zip(*parts, strict=True)
        joined = None if spatial[0] is None else np.concatenate(spatial)
        return Features(np.concatenate(pool), np.concatenate(logits), joined)

    def _read(self, outputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(None if x is None else self._panel.numpy(x) for x in outputs)


def open_extractor(
    name: str, backend: str = "torch", device: str = "auto", weights: Path | None = None
) -> Network:
    """A feature network, ready to run.

    Args:
        name: "inception", "mnist" or "fashion_mnist"; "pixels": none, and no features.
        backend: "torch" or "jittor"; the other must not be loaded in this process.
        device: as in `diptych.backends.load`.
        weights: a file that replaces the published or shipped weights: for inception in the
            published layout (.pth or .safetensors), otherwise as `train_classifier` writes it.

    Raises:
        UserError: unknown name, backend or device; weights missing, damaged or for another network.
        MachineError: the weights cannot be read or stored on this machine.
    """
    if name == NO_NETWORK:
        if weights is not None:
            raise UserError(
                f"{weights}: --features {NO_NETWORK} has no weights; leave --weights out"
            )
        return Network(name, backends.load(backend, device), None, "", 0)
    if name not in NAMES:
        raise UserError(f"no feature network is called '{name}'{nearest(name, list(NAMES))}")
    if name == "inception":
        found, dims = inception_weights(weights), inception_plan.DIMS
    else:
        found, dims = classifier_weights(name, weights), classifier_plan.DIMS
    panel = backends.load(backend, device)
    return Network(name, panel, panel.feature_network(name, found.arrays), found.sha256, dims)
