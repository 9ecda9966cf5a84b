"""Convert pixels to network inputs and back: the official DDIM transforms and their inverses.

    u = p / 255, or (p + r) / 256 with uniform dequantization, then + 0.01 n with the gaussian one
    x = 2 u - 1  (rescaled),   log y - log(1 - y) with y = lam + (1 - 2 lam) u  (logit),   or u

    p = round(255 u), or floor(256 u) with uniform dequantization, clipped to 0 .. 255

p is a pixel 0 .. 255, r uniform in (0, 1), n standard normal, lam = 1e-6. Source: `data_transform`
of ermongroup/ddim. This module differs from it in two points, both in the inverse: the inverse of
the logit removes lam (at most 1e-6 of the range), and after uniform dequantization a pixel is the
interval of 1/256 that contains u, so p is recovered exactly; the official code rounds 255 u and may
be one level off. r is drawn as an odd multiple of 2**-16, so that float32 holds p + r exactly. The
noise is keyed by (seed, step): a batch stays a function of its step, and both backends see the same
bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diptych import rng
from diptych.config.load import DataConfig
from diptych.types import Float32, Float64, Pixels

LAMBDA = 1e-6
GAUSSIAN = np.float32(0.01)
_SATURATED = 40.0  # a sigmoid beyond is 0 or 1 in float64 up to 1e-17; clip so exp cannot overflow


def to_float(images: Pixels) -> Float32:
    """Convert pixels 0 .. 255 to float32 in [-1, 1]: x / 127.5 - 1."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(images: Float32) -> Pixels:
    """Convert floats to pixels: clip x to [-1, 1], then round 127.5 (x + 1) to nearest."""
    pixels = np.rint((np.clip(images, -1, 1) + 1) * np.float32(127.5))
    return np.asarray(pixels, dtype=np.uint8)


@dataclass(frozen=True)
class Preprocess:
    """The transform from pixels to network inputs; the defaults give 2 p / 255 - 1."""

    rescaled: bool = True
    logit_transform: bool = False
    dequantization: str = "none"

    @property
    def plain(self) -> bool:
        """True if the transform is `to_float`, without noise."""
        return self.rescaled and self.dequantization == "none"

    def floats(self, pixels: Pixels, seed: int, step: int) -> Float32:
        """Convert a batch of pixels to network inputs.

        Args:
            pixels: (B, C, H, W), uint8.
            seed: the run's seed; with the step it keys the dequantization noise.
            step: the batch's training step.

        Returns:
            float32 of the same shape: in [-1, 1] if rescaled, unbounded after the logit, else in
            [0, 1]; gaussian noise can exceed these ranges.
        """
        if self.plain:
            return to_float(pixels)
        return self._scaled(self._spread(pixels, seed, step), pixels)

    def still(self, pixels: Pixels) -> Float32:
        """`floats` without noise, for image editing: each pixel level maps to one number.

        With uniform dequantization, that is the midpoint of the level's interval.
        """
        if self.dequantization != "uniform":
            return replace(self, dequantization="none").floats(pixels, 0, 0)
        return self._scaled((pixels.astype(np.float32) + np.float32(0.5)) / np.float32(256), pixels)

    def _scaled(self, u: Float32, pixels: Pixels) -> Float32:
        if self.rescaled:
            return np.float32(2) * u - np.float32(1)
        if not self.logit_transform:
            return u
        exact = u.astype(np.float64) if self.dequantization != "none" else pixels / 255.0
        y = LAMBDA + (1 - 2 * LAMBDA) * exact
        return np.asarray(np.log(y) - np.log1p(-y), dtype=np.float32)

    def _spread(self, pixels: Pixels, seed: int, step: int) -> Float32:
        """Scale pixels to [0, 1] and add the dequantization noise."""
        floats = pixels.astype(np.float32)
        if self.dequantization == "uniform":
            draws = rng.stream(seed, "dequantization", step)
            odd = 2 * draws.integers(0, 1 << 15, pixels.shape, dtype=np.uint16) + 1
            return (floats + odd.astype(np.float32) / np.float32(65536)) / np.float32(256)
        floats /= np.float32(255)
        if self.dequantization == "gaussian":
            floats += GAUSSIAN * rng.normal(seed, "dequantization", pixels.shape, step)
        return floats

    def pixels(self, floats: Float32) -> Pixels:
        """Convert samples back: uint8 of the same shape; `pixels(floats(p)) == p`.

        Gaussian noise cannot be removed: the nearest pixels are returned.
        """
        if self.rescaled and self.dequantization != "uniform":
            return to_uint8(floats)
        u = self.unit(floats)
        levels = np.floor(256 * u) if self.dequantization == "uniform" else np.rint(255 * u)
        return np.asarray(np.clip(levels, 0, 255), dtype=np.uint8)

    def unit(self, floats: Float32) -> Float64:
        """Convert back without rounding to pixels: float64, clipped to [0, 1]."""
        u = floats.astype(np.float64)
        if self.rescaled:
            u = (u + 1) / 2
        elif self.logit_transform:
            sigmoid = 1 / (1 + np.exp(-np.clip(u, -_SATURATED, _SATURATED)))
            u = (sigmoid - LAMBDA) / (1 - 2 * LAMBDA)
        return np.clip(u, 0.0, 1.0)


PLAIN = Preprocess()


def preprocess_of(data: DataConfig) -> Preprocess:
    """The transform that a config specifies."""
    return Preprocess(data.rescaled, data.logit_transform, data.dequantization)
