"""Layers of the U-Net, as in the official DDIM code. Mirrors `torch/layers.py`.

    GroupNorm: 32 groups, eps 1e-6, or as in the plan.     attention: one head, scaled by C^-0.5.
    Padding of a convolution: (before, after) on both axes; the strided one has (0, 1).

Images are (B, C, H, W), float32. Weights start at zero because they are always loaded.
"""

from __future__ import annotations

import jittor as jt
from jittor import nn

from diptych.backends.jittor import kernels
from diptych.network.plan import NORM_EPS as EPS
from diptych.network.plan import NORM_GROUPS as GROUPS


class Conv2d(nn.Module):  # type: ignore[misc]
    """Convolution with bias, weight (O, I, k, k)."""

    def __init__(
        self, in_ch: int, out_ch: int, kernel: int, stride: int = 1, pad: tuple[int, int] = (1, 1)
    ) -> None:
        super().__init__()
        self.stride, self.pad = stride, pad
        self.weight = jt.zeros((out_ch, in_ch, kernel, kernel))
        self.bias = jt.zeros((out_ch,))

    def execute(self, x: jt.Var, doubled: bool = False) -> jt.Var:
        """Convolve x; with `doubled`, x upsampled 2x (nearest), only for 3x3 with padding 1."""
        x = kernels.upsample(x) if doubled else x
        return kernels.conv2d(x, self.weight, self.bias, self.stride, self.pad)


class GroupNorm(nn.Module):  # type: ignore[misc]
    """GroupNorm of x + shift, then silu if `silu` is set; shift is (B or 1, C)."""

    def __init__(self, ch: int, silu: bool = False) -> None:
        super().__init__()
        self.silu, self.groups, self.eps = silu, GROUPS, EPS
        self.weight = jt.ones((ch,))
        self.bias = jt.zeros((ch,))

    def execute(self, x: jt.Var, shift: jt.Var | None = None) -> jt.Var:
        w, b = self.weight, self.bias
        return kernels.group_norm(x, w, b, shift, self.groups, self.eps, self.silu)


class Linear(nn.Module):  # type: ignore[misc]
    """x w^T + b, weight (out, in)."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.weight = jt.zeros((out_ch, in_ch))
        self.bias = jt.zeros((out_ch,))

    def execute(self, x: jt.Var) -> jt.Var:
        return kernels.linear(x, self.weight, self.bias)


class Embedding(nn.Module):  # type: ignore[misc]
    """A learned vector for each row of the identity: (B, rows) -> (B, out); weight (rows, out)."""

    def __init__(self, rows: int, out_ch: int) -> None:
        super().__init__()
        self.weight = jt.zeros((rows, out_ch))

    def execute(self, x: jt.Var) -> jt.Var:
        return jt.matmul(x, self.weight)


def silu(x: jt.Var) -> jt.Var:
    """x * sigmoid(x)."""
    return kernels.silu(x)


def attention(q: jt.Var, k: jt.Var, v: jt.Var) -> jt.Var:
    """softmax over keys of q^T k / sqrt(C), applied to v; all (B, C, H, W), one head."""
    return kernels.attention(q, k, v)


def upsample(x: jt.Var) -> jt.Var:
    """Nearest-neighbour upsampling to twice the height and width."""
    return kernels.upsample(x)


def avg_pool(x: jt.Var) -> jt.Var:
    """Means of 2x2 pixels, half the height and width; both must be even."""
    return kernels.avg_pool(x)


def concat(a: jt.Var, b: jt.Var) -> jt.Var:
    """[a, b] along the channels."""
    return kernels.concat(a, b)


def add(a: jt.Var, b: jt.Var) -> jt.Var:
    """a + b: the residual sum."""
    return kernels.add(a, b)


def dropout(x: jt.Var, mask: jt.Var, rate: float) -> jt.Var:
    """x * mask / (1 - rate); mask is uint8, zeros and ones, of x's shape."""
    return kernels.dropout(x, mask, rate)
