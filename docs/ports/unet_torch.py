"""A small U-Net in PyTorch, conditioned on a timestep."""

import math

import torch
from torch import nn
from torch.nn import functional as F

INPUTS = {
    "x": {"shape": [2, 3, 16, 16]},
    "t": {"shape": [2], "low": 0, "high": 1000, "dtype": "int64"},
}


def embedding(t, width):
    rates = torch.exp(-math.log(10000.0) * torch.arange(width // 2).to(t.device) / (width // 2))
    angles = t[:, None] * rates.to(torch.get_default_dtype())[None]
    return torch.cat([torch.sin(angles), torch.cos(angles)], 1)


class Block(nn.Module):
    def __init__(self, inward, outward, time):
        super().__init__()
        self.norm1 = nn.GroupNorm(4, inward)
        self.conv1 = nn.Conv2d(inward, outward, 3, padding=1)
        self.time = nn.Linear(time, outward)
        self.norm2 = nn.GroupNorm(4, outward)
        self.conv2 = nn.Conv2d(outward, outward, 3, padding=1)
        self.skip = nn.Conv2d(inward, outward, 1)

    def forward(self, x, emb):
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(emb))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class UNet(nn.Module):
    def __init__(self, ch=8):
        super().__init__()
        self.time1, self.time2 = nn.Linear(ch, 4 * ch), nn.Linear(4 * ch, 4 * ch)
        self.conv_in = nn.Conv2d(3, ch, 3, padding=1)
        self.down1 = Block(ch, ch, 4 * ch)
        self.downsample = nn.Conv2d(ch, ch, 3, stride=2, padding=1)
        self.down2 = Block(ch, 2 * ch, 4 * ch)
        self.mid = Block(2 * ch, 2 * ch, 4 * ch)
        self.up2 = Block(4 * ch, ch, 4 * ch)
        self.upconv = nn.Conv2d(ch, ch, 3, padding=1)
        self.up1 = Block(2 * ch, ch, 4 * ch)
        self.norm_out = nn.GroupNorm(4, ch)
        self.conv_out = nn.Conv2d(ch, 3, 3, padding=1)
        self.ch = ch

    def forward(self, x, t):
        emb = self.time2(F.silu(self.time1(embedding(t, self.ch))))
        a = self.down1(self.conv_in(x), emb)
        b = self.down2(self.downsample(a), emb)
        h = self.mid(b, emb)
        h = self.up2(torch.cat([h, b], 1), emb)
        h = self.upconv(F.interpolate(h, scale_factor=2, mode="nearest"))
        h = self.up1(torch.cat([h, a], 1), emb)
        return self.conv_out(F.silu(self.norm_out(h)))


def build():
    return UNet()


def optimizer(model):
    return torch.optim.Adam(model.parameters(), lr=2e-4)
