"""Weights packed once, for inference on a CPU.

By default oneDNN reorders a convolution's weights into its own layout at every call, and the
convolution of an upsampling sums its weights at every call. Here both are done when the network is
built. A packed convolution returns channels-last images and copies other inputs into that layout,
so every convolution is packed, from the first one on. The operators are those that PyTorch's
compiler calls; if a version lacks them, nothing is packed. With 32 and 64 channels packing made
calls slower, so these networks are not packed (docs/log.md).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from diptych.backends.torch.layers import Conv2d, folded
from diptych.backends.torch.unet import Upsample

FROM_CHANNELS = 128


def pack(network: nn.Module, ch: int) -> nn.Module:
    """The network, its convolutions replaced; later changes of their weights have no effect.

    Args:
        network: a network on a CPU, for inference only.
        ch: the plan's base channels.
    """
    if ch >= FROM_CHANNELS and _available():
        for conv in network.modules():
            if isinstance(conv, Conv2d):
                conv.forward = _Packed(conv)  # type: ignore[method-assign]
    for module in network.modules():
        if isinstance(module, Upsample) and module.with_conv:
            module.conv.forward = _Doubling(module.conv)  # type: ignore[method-assign]
    return network


def _available() -> bool:
    operators = torch.ops.mkldnn
    names = ("_reorder_convolution_weight", "_convolution_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(operators, n) for n in names)


class _Doubling:
    """The convolution after nearest upsampling, with its weights summed."""

    def __init__(self, conv: Conv2d) -> None:
        self.weight = folded(conv.weight.detach()).contiguous()
        self.bias = conv.bias

    def __call__(self, x: torch.Tensor, doubled: bool = True) -> torch.Tensor:
        assert doubled
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2, padding=1)


class _Packed:
    """A convolution with weights in oneDNN's layout, chosen for the shape of the first images."""

    def __init__(self, conv: Conv2d) -> None:
        self.conv = conv
        self.weight: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, doubled: bool = False) -> torch.Tensor:
        conv, (before, after) = self.conv, self.conv.pad
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        geometry = [before] * 2, [conv.stride] * 2, [1, 1], 1
        if self.weight is None:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = reorder(conv.weight.detach(), *geometry, list(x.shape))
        run = torch.ops.mkldnn._convolution_pointwise
        return run(x, self.weight, conv.bias, *geometry, "none", [], "")
