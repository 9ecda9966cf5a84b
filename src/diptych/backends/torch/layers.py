"""Layers of the U-Net, as in the official DDIM code. Mirrors `jittor/layers.py`.

    GroupNorm: 32 groups, eps 1e-6, or as in the plan.     attention: one head, scaled by C^-0.5.
    Padding of a convolution: (before, after) on both axes; the strided one has (0, 1).

Images are (B, C, H, W), float32. Weights start at zero because they are always loaded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from diptych.network.plan import NORM_EPS as EPS
from diptych.network.plan import NORM_GROUPS as GROUPS


class Conv2d(nn.Module):
    """Convolution with bias, weight (O, I, k, k)."""

    def __init__(
        self, in_ch: int, out_ch: int, kernel: int, stride: int = 1, pad: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.stride, self.pad = stride, pad
        self.weight = nn.Parameter(torch.zeros((out_ch, in_ch, kernel, kernel)))
        self.bias = nn.Parameter(torch.zeros((out_ch,)))

    def forward(self, x: torch.Tensor, doubled: bool = False) -> torch.Tensor:
        """Convolve x; with `doubled`, x upsampled 2x (nearest), only for 3x3 with padding 1."""
        if doubled:
            return F.conv_transpose2d(x, folded(self.weight), self.bias, stride=2, padding=1)
        before, after = self.pad
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        return F.conv2d(x, self.weight, self.bias, self.stride, before)


def folded(weight: torch.Tensor) -> torch.Tensor:
    """(O, I, 3, 3) -> (I, O, 4, 4): nearest upsampling and the convolution as one.

    After upsampling, a 3x3 kernel covers only 2x2 different pixels. A transposed convolution of
    stride 2, whose weights sum those that meet the same pixel, does 4/9 of the work.
    """
    sums = weight.flatten(2) @ fold(weight.dtype, weight.device)
    return sums.unflatten(2, (4, 4)).transpose(0, 1)


_FOLDS: dict[tuple[torch.dtype, torch.device], torch.Tensor] = {}


def fold(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """(9, 16): made once, as a copy from the host makes it wait for the device."""
    if (dtype, device) not in _FOLDS:
        rows = [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]
        with torch.inference_mode(False):  # it also serves training
            once = torch.tensor(rows, dtype=dtype, device=device)
            _FOLDS[dtype, device] = torch.kron(once, once).t()
    return _FOLDS[dtype, device]


class GroupNorm(nn.Module):
    """GroupNorm of x + shift, then silu if `silu` is set; shift is (B or 1, C).

    `rstd` is that of the last call, (B, groups): 0 where the squares were beyond float32.
    """

    rstd: torch.Tensor

    def __init__(self, ch: int, silu: bool = False) -> None:
        super().__init__()
        self.silu, self.groups, self.eps = silu, GROUPS, EPS
        self.weight = nn.Parameter(torch.ones((ch,)))
        self.bias = nn.Parameter(torch.zeros((ch,)))

    def forward(self, x: torch.Tensor, shift: torch.Tensor | None = None) -> torch.Tensor:
        if shift is not None:
            x = x + shift[:, :, None, None]
        sizes = x.shape[0], x.shape[1], x.shape[2] * x.shape[3], self.groups
        # F.group_norm does so too, but gives no rstd. Under autocast to bfloat16 it would compute
        # in float32; here the sums alone are, and means and rstd are rounded (docs/gpu.md).
        last = x.is_cpu and x.is_contiguous(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)  # of one type, on a GPU
        x, _, rstd = torch.native_group_norm(x, weight, bias, *sizes, self.eps)
        self.rstd = rstd.detach()
        return F.silu(x) if self.silu else x


def unless_overflown(y: torch.Tensor, norms: Sequence[GroupNorm]) -> torch.Tensor:
    """y, (B, C, H, W); an image is NaN if the squares of one of its groups in one of these norms
    overflowed float32 in the last call.

    PyTorch's norm gives its bias there, as if nothing had gone wrong.
    """
    least = torch.cat([norm.rstd for norm in norms], 1).amin(1)
    return y + (0 / least)[:, None, None, None]


class Linear(nn.Module):
    """x w^T + b, weight (out, in)."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((out_ch, in_ch)))
        self.bias = nn.Parameter(torch.zeros((out_ch,)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class Embedding(nn.Module):
    """A learned vector for each row of the identity: (B, rows) -> (B, out); weight (rows, out)."""

    def __init__(self, rows: int, out_ch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((rows, out_ch)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.matmul(x, self.weight)


def silu(x: torch.Tensor) -> torch.Tensor:
    """x * sigmoid(x)."""
    return F.silu(x)


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax over keys of q^T k / sqrt(C), applied to v; all (B, C, H, W), one head."""
    q_, k_, v_ = (x.flatten(2) for x in (q, k, v))
    scores = torch.bmm(q_.transpose(1, 2), k_) * q.shape[1] ** -0.5
    return torch.bmm(v_, torch.softmax(scores, dim=2).transpose(1, 2)).view(q.shape)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Nearest-neighbour upsampling to twice the height and width."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def avg_pool(x: torch.Tensor) -> torch.Tensor:
    """Means of 2x2 pixels, half the height and width; both must be even."""
    return F.avg_pool2d(x, 2)


def concat(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """[a, b] along the channels."""
    return torch.cat([a, b], dim=1)


def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a + b: the residual sum."""
    return a + b


def dropout(x: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
    """x * mask / (1 - rate); mask is uint8, zeros and ones, of x's shape."""
    scale = 1 / (1 - rate)
    if x.is_cpu and x.dtype == torch.float32:
        return x * (mask * scale)  # a pass less, and the same bits
    return x * mask * scale  # x keeps its type, and the backward pass a mask of bytes
