"""Faults planted into docs/ports/vit_jittor.py."""

import jittor as jt
from jittor import nn
from vit_jittor import Layer, SelfAttention, optimizer
from vit_jittor import build as sound

__all__ = ["optimizer"]


def eps():
    model = sound()
    model.encoder[1].ln_after.eps = 1e-5
    return model


class Wrong(SelfAttention):
    scale, axis = None, -1

    def execute(self, x):
        b, n, c = x.shape
        qkv = self.in_proj(x).reshape(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = self.scale or (c // self.heads) ** -0.5
        weights = nn.softmax(jt.matmul(q, k.transpose(2, 3)) * scale, self.axis)
        return self.out_proj(jt.matmul(weights, v).transpose(1, 2).reshape(b, n, c))


class WholeScale(Wrong):
    scale = 24**-0.5


class OtherAxis(Wrong):
    axis = -2


def scale():
    model = sound()
    model.encoder[0].attention = WholeScale(24, 3)
    return model


def axis():
    model = sound()
    model.encoder[1].attention = OtherAxis(24, 3)
    return model


class TanhGelu(nn.Module):
    def execute(self, x):
        return 0.5 * x * (1 + jt.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def activation():
    model = sound()
    model.encoder[0].act = TanhGelu()
    return model


class Detached(Layer):
    def execute(self, x):
        x = x + self.attention(self.ln_before(x)).detach()
        return x + self.fc_out(self.act(self.fc_in(self.ln_after(x))))


def detached():
    model = sound()
    model.encoder[1].__class__ = Detached
    return model
