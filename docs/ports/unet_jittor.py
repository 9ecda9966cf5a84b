"""The U-Net of unet_torch.py in Jittor, by somebody who names and nests things otherwise."""

import math

import jittor as jt
import numpy as np
from jittor import nn
from own_jittor import Adam


def swish(x):
    return x * jt.sigmoid(x)


def timestep(t, width):
    rates = np.exp(-math.log(10000.0) * np.arange(width // 2) / (width // 2)).astype("float32")
    angles = t.float32().unsqueeze(1) * jt.array(rates).unsqueeze(0)
    return jt.concat([jt.sin(angles), jt.cos(angles)], 1)


class ResnetBlock(nn.Module):
    def __init__(self, c_in, c_out, c_emb):
        super().__init__()
        self.gn_a = nn.GroupNorm(4, c_in)
        self.conv_a = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb_proj = nn.Linear(c_emb, c_out)
        self.gn_b = nn.GroupNorm(4, c_out)
        self.conv_b = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1)

    def execute(self, x, emb):
        h = self.conv_a(swish(self.gn_a(x)))
        h = h + self.emb_proj(swish(emb)).unsqueeze(2).unsqueeze(3)
        return self.shortcut(x) + self.conv_b(swish(self.gn_b(h)))


class Encoder(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.first = nn.Conv2d(3, ch, 3, padding=1)
        self.res_hi = ResnetBlock(ch, ch, 4 * ch)
        self.pool = nn.Conv2d(ch, ch, 3, stride=2, padding=1)
        self.res_lo = ResnetBlock(ch, 2 * ch, 4 * ch)

    def execute(self, x, emb):
        hi = self.res_hi(self.first(x), emb)
        return hi, self.res_lo(self.pool(hi), emb)


class Decoder(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.res_lo = ResnetBlock(4 * ch, ch, 4 * ch)
        self.smooth = nn.Conv2d(ch, ch, 3, padding=1)
        self.res_hi = ResnetBlock(2 * ch, ch, 4 * ch)
        self.last_gn = nn.GroupNorm(4, ch)
        self.last = nn.Conv2d(ch, 3, 3, padding=1)

    def execute(self, h, lo, hi, emb):
        h = self.res_lo(jt.concat([h, lo], 1), emb)
        h = self.smooth(nn.interpolate(h, scale_factor=2, mode="nearest"))
        h = self.res_hi(jt.concat([h, hi], 1), emb)
        return self.last(swish(self.last_gn(h)))


class Model(nn.Module):
    def __init__(self, ch=8):
        super().__init__()
        self.ch = ch
        self.decoder = Decoder(ch)
        self.encoder = Encoder(ch)
        self.bottleneck = ResnetBlock(2 * ch, 2 * ch, 4 * ch)
        self.emb = nn.Sequential(nn.Linear(ch, 4 * ch), nn.SiLU(), nn.Linear(4 * ch, 4 * ch))

    def execute(self, x, t):
        emb = self.emb(timestep(t, self.ch))
        hi, lo = self.encoder(x, emb)
        return self.decoder(self.bottleneck(lo, emb), lo, hi, emb)


def build():
    return Model()


def optimizer(model):
    return Adam(model.parameters(), lr=2e-4)
