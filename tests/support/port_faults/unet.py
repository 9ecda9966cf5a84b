"""Faults planted into docs/ports/unet_jittor.py."""

import jittor as jt
from jittor import nn
from unet_jittor import Decoder, Model, optimizer, swish, timestep
from unet_jittor import build as sound

__all__ = ["optimizer"]


def groups():
    model = sound()
    model.bottleneck.gn_b.num_groups = 8
    return model


class Swapped(Decoder):
    def execute(self, h, lo, hi, emb):
        h = self.res_lo(jt.concat([h, lo], 1), emb)
        h = self.smooth(nn.interpolate(h, scale_factor=2, mode="nearest"))
        h = self.res_hi(jt.concat([hi, h], 1), emb)
        return self.last(swish(self.last_gn(h)))


def concat():
    model = sound()
    model.decoder = Swapped(8)
    return model


class Bilinear(Decoder):
    def execute(self, h, lo, hi, emb):
        h = self.res_lo(jt.concat([h, lo], 1), emb)
        h = self.smooth(nn.interpolate(h, scale_factor=2, mode="bilinear"))
        h = self.res_hi(jt.concat([h, hi], 1), emb)
        return self.last(swish(self.last_gn(h)))


def upsample():
    model = sound()
    model.decoder = Bilinear(8)
    return model


class OneSided(nn.Conv2d):
    def execute(self, x):
        return nn.conv2d(nn.pad(x, [0, 1, 0, 1]), self.weight, self.bias, self.stride, 0)


def padding():
    model = sound()
    model.encoder.pool = OneSided(8, 8, 3, stride=2, padding=1)
    return model


class CosineFirst(Model):
    def execute(self, x, t):
        sine, cosine = timestep(t, self.ch).chunk(2, 1)
        emb = self.emb(jt.concat([cosine, sine], 1))
        hi, lo = self.encoder(x, emb)
        return self.decoder(self.bottleneck(lo, emb), lo, hi, emb)


def embedding():
    return CosineFirst()
