"""Convolutions of the feature networks, for both backends, with their BatchNorms folded in.

    y = relu(conv(x, w) + b),     w = w0 * gamma / sqrt(var + eps),  b = beta - mean * that scale

A trained BatchNorm is a fixed scale and shift per channel, so it is multiplied into the preceding
convolution, in float64 on the host: one rounding instead of three, and half the work. The arrays
of a network are `NAME.weight` (O, I, kh, kw) and `NAME.bias` (O,) for each convolution,
`fc.weight` (K, dims) and `fc.bias` (K,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diptych.types import Array, Float32


@dataclass(frozen=True)
class Conv:
    """One convolution with its norm and relu; kernel and padding are (height, width)."""

    name: str
    in_ch: int
    out_ch: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    pad: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the weight, (O, I, kh, kw)."""
        return (self.out_ch, self.in_ch, *self.kernel)


def fold(weight: Array, norm: Sequence[Array], eps: float) -> tuple[Float32, Float32]:
    """Weight (O, I, kh, kw) and bias (O,) of a convolution with its BatchNorm multiplied in.

    `norm` is the scale, shift, running mean and running variance, (O,) each.
    """
    gamma, beta, mean, var = (part.astype(np.float64) for part in norm)
    scale = gamma / np.sqrt(var + eps)
    folded, bias = weight.astype(np.float64) * scale[:, None, None, None], beta - mean * scale
    return folded.astype(np.float32), bias.astype(np.float32)


def shapes(convs: Sequence[Conv], classes: int, dims: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of a folded network's arrays."""
    found: dict[str, tuple[int, ...]] = {}
    for conv in convs:
        found |= {f"{conv.name}.weight": conv.shape, f"{conv.name}.bias": (conv.out_ch,)}
    return found | {"fc.weight": (classes, dims), "fc.bias": (classes,)}


def misfit(arrays: Mapping[str, Array], wanted: Mapping[str, tuple[int, ...]]) -> str | None:
    """Describe the first array that does not fit, in a few words; None if all fit."""
    missing, extra = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing:
        return f"'{missing[0]}' is missing" + _and_more(missing)
    if extra:
        return f"'{ascii(extra[0])[1:-1][:80]}' does not belong there" + _and_more(extra)
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            return f"'{name}' is {arrays[name].shape}, expected {shape}"
        if not np.isfinite(arrays[name]).all():
            return f"'{name}' holds values that are not finite"
    return None


def _and_more(names: Sequence[str]) -> str:
    return f", and {len(names) - 1} more" if len(names) > 1 else ""
