"""Layers of the feature networks, forward only. Mirrors diptych/backends/jittor/feature_layers.py.

Images are channels-last in memory (torch.channels_last), measured twice as fast in Inception as
the default; the branches of a block are joined in this layout too. Convolutions take folded
weights and end with a relu.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from diptych.network.features.conv import Conv


def place(x: torch.Tensor) -> torch.Tensor:
    """Images (B, C, H, W) in the layout of the layers."""
    return x.contiguous(memory_format=torch.channels_last)


def place_weight(w: torch.Tensor) -> torch.Tensor:
    """A weight array in the layout of the layers; only those of convolutions change."""
    return place(w) if w.ndim == 4 else w


def resize(
    x: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    scale: float,
    shift: float,
    limits: tuple[float, float],
) -> torch.Tensor:
    """clip(rows x columns^T) * scale + shift of uint8 (B, H, W, 1 or 3), as three channels."""
    planes = x.permute(0, 3, 1, 2).to(torch.float32)
    y = torch.matmul(torch.matmul(rows, planes), columns.T)
    return place((y.clamp(*limits) * scale + shift).expand(-1, 3, -1, -1))


def conv_relu(
    x: torch.Tensor, conv: Conv, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    """relu(conv(x) + bias)."""
    return F.conv2d(x, weight, bias, conv.stride, conv.pad).relu_()


def max_pool(x: torch.Tensor, stride: int, pad: int) -> torch.Tensor:
    """Maximum over 3x3 windows; padding never wins."""
    return F.max_pool2d(x, 3, stride, pad)


def avg_pool(x: torch.Tensor) -> torch.Tensor:
    """Mean over the pixels of a 3x3 window that are inside the image; the size stays."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate the parts along the channels."""
    return torch.cat(list(parts), dim=1)


def pixel_mean(x: torch.Tensor) -> torch.Tensor:
    """(B, C): the mean over all pixels."""
    return x.mean((2, 3))


def corner(x: torch.Tensor, channels: int) -> torch.Tensor:
    """(B, H * W * channels): the first channels of every pixel, pixel by pixel."""
    return x[:, :channels].permute(0, 2, 3, 1).flatten(1)


def dense(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """x w^T + b for x (B, I), w (O, I), b (O,)."""
    return F.linear(x, weight, bias)
