"""A port as people write them: its own layers and names, time steps as input, and one mistake.

    diptych align --subject small_port:build --reference torch:tiny --names small_port.yaml

`build` pads the strided convolution by one pixel on all sides. The network that it imitates pads
below and to the right only. Shapes, parameters and loss look right; every checkpoint loads.
`build_fixed` is the same network with the right padding.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class Block(nn.Module):
    def __init__(self, inward: int, outward: int, time: int) -> None:
        super().__init__()
        self.n1, self.c1 = norm(inward), nn.Conv2d(inward, outward, 3, padding=1)
        self.time = nn.Linear(time, outward)
        self.n2, self.c2 = norm(outward), nn.Conv2d(outward, outward, 3, padding=1)
        self.skip = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: torch.Tensor, emb: torch.Tensor) -> torch.Tensor:
        h = self.c1(F.silu(self.n1(x)))
        h = h + self.time(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.c2(F.silu(self.n2(h)))


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2).transpose(1, 2) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(mixed.transpose(1, 2).reshape(x.shape))


class Halve(nn.Module):
    def __init__(self, channels: int, right: bool) -> None:
        super().__init__()
        self.right = right
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=0 if right else 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.right else x)


class Net(nn.Module):
    """The plan of `tiny`: two resolutions, one block each, attention at the lower one."""

    def __init__(self, ch: int, right: bool) -> None:
        super().__init__()
        self.ch, time = ch, 4 * ch
        self.t1, self.t2 = nn.Linear(ch, time), nn.Linear(time, time)
        self.stem = nn.Conv2d(1, ch, 3, padding=1)
        self.high = Block(ch, ch, time)
        self.halve = Halve(ch, right)
        self.low, self.low_attn = Block(ch, 2 * ch, time), Attention(2 * ch)
        self.mid1, self.mid_attn = Block(2 * ch, 2 * ch, time), Attention(2 * ch)
        self.mid2 = Block(2 * ch, 2 * ch, time)
        self.rise1, self.rise1_attn = Block(4 * ch, 2 * ch, time), Attention(2 * ch)
        self.rise2, self.rise2_attn = Block(3 * ch, 2 * ch, time), Attention(2 * ch)
        self.grow = nn.Conv2d(2 * ch, 2 * ch, 3, padding=1)
        self.top1, self.top2 = Block(3 * ch, ch, time), Block(2 * ch, ch, time)
        self.head_norm, self.head = norm(ch), nn.Conv2d(ch, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        half = self.ch // 2
        rates = torch.exp(torch.arange(half).float() * -(math.log(10000) / (half - 1)))
        angles = t.float()[:, None] * rates[None]
        emb = self.t2(F.silu(self.t1(torch.cat([angles.sin(), angles.cos()], dim=1))))
        h0 = self.stem(x)
        h1 = self.high(h0, emb)
        h2 = self.halve(h1)
        h3 = self.low_attn(self.low(h2, emb))
        h = self.mid2(self.mid_attn(self.mid1(h3, emb)), emb)
        h = self.rise1_attn(self.rise1(torch.cat([h, h3], dim=1), emb))
        h = self.rise2_attn(self.rise2(torch.cat([h, h2], dim=1), emb))
        h = self.grow(F.interpolate(h, scale_factor=2))
        h = self.top1(torch.cat([h, h1], dim=1), emb)
        h = self.top2(torch.cat([h, h0], dim=1), emb)
        return self.head(F.silu(self.head_norm(h)))


def build() -> nn.Module:
    """The port with its mistake."""
    return Net(32, right=False)


def build_fixed() -> nn.Module:
    """The port as it should be."""
    return Net(32, right=True)
