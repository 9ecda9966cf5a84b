"""Layers of the feature networks, forward only. Mirrors diptych/backends/torch/feature_layers.py.

Images are (B, H, W, C) here: Jittor has no memory formats, and oneDNN takes channels-last arrays
without a copy. Convolutions take folded weights and end with a relu.
"""

from __future__ import annotations

from collections.abc import Sequence

import jittor as jt

from diptych.backends.jittor import kernels
from diptych.backends.jittor.kernels import inference
from diptych.network.features.conv import Conv


def place(x: jt.Var) -> jt.Var:
    """Images (B, C, H, W) in the layout of the layers."""
    return x.transpose(0, 2, 3, 1)


def place_weight(w: jt.Var) -> jt.Var:
    """A weight array in the layout of the layers; oneDNN chooses its own at each call."""
    return w


def resize(
    x: jt.Var,
    rows: jt.Var,
    columns: jt.Var,
    scale: float,
    shift: float,
    limits: tuple[float, float],
) -> jt.Var:
    """clip(rows x columns^T) * scale + shift of uint8 (B, H, W, 1 or 3), as three channels."""
    return inference.resize(x, rows, columns, scale, shift, limits)


def conv_relu(x: jt.Var, conv: Conv, weight: jt.Var, bias: jt.Var) -> jt.Var:
    """relu(conv(x) + bias)."""
    return inference.conv_relu(x, weight, bias, conv.stride, conv.pad)


def max_pool(x: jt.Var, stride: int, pad: int) -> jt.Var:
    """Maximum over 3x3 windows; padding never wins."""
    return inference.max_pool(x, stride, pad)


def avg_pool(x: jt.Var) -> jt.Var:
    """Mean over the pixels of a 3x3 window that are inside the image; the size stays."""
    return inference.avg_pool_inside(x)


def join(parts: Sequence[jt.Var]) -> jt.Var:
    """Concatenate the parts along the channels."""
    return inference.join(parts)


def pixel_mean(x: jt.Var) -> jt.Var:
    """(B, C): the mean over all pixels."""
    return inference.pixel_mean(x)


def corner(x: jt.Var, channels: int) -> jt.Var:
    """(B, H * W * channels): the first channels of every pixel, pixel by pixel."""
    return x[:, :, :, :channels].reshape(x.shape[0], -1)


def dense(x: jt.Var, weight: jt.Var, bias: jt.Var) -> jt.Var:
    """x w^T + b for x (B, I), w (O, I), b (O,)."""
    return kernels.linear(x, weight, bias)
