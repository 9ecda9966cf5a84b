"""Faults planted into docs/ports/mlp_jittor.py."""

import jittor as jt
from jittor import nn
from mlp_jittor import build as sound
from mlp_jittor import loss, optimizer

__all__ = ["loss", "optimizer"]


def eps():
    model = sound()
    model.norm2.eps = 1e-6
    return model


def no_bias():
    model = sound()
    model.head.bias = None
    return model


class Transposed(nn.Linear):
    def execute(self, x):
        return jt.matmul(x, self.weight) + self.bias


def transposed():
    model = sound()
    model.fc2 = Transposed(32, 32)
    return model


class TanhGelu(nn.Module):
    def execute(self, x):
        return 0.5 * x * (1 + jt.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def activation():
    model = sound()
    model.act1 = TanhGelu()
    return model


def adam():
    return sound()


adam.optimizer = lambda model: jt.optim.Adam(model.parameters(), lr=1e-3)
