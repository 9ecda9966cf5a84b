"""Faults planted into docs/ports/tied_jittor.py."""

import jittor as jt
from jittor import nn
from tied_jittor import Attention, FeedForward, Language, loss, optimizer
from tied_jittor import build as sound

__all__ = ["loss", "optimizer"]


class Untied(Language):
    def __init__(self):
        super().__init__()
        self.lm_head = nn.Linear(16, 40, bias=False)

    def execute(self, tokens):
        x = self.wte(tokens) + self.wpe(jt.arange(tokens.shape[1]))
        for layer in self.h:
            x = layer(x)
        return self.lm_head(self.norm_f(x))


def untied():
    return Untied()


def eps():
    model = sound()
    model.h[0].norm_mid.eps = 1e-5
    return model


class LooseMask(Attention):
    def execute(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = jt.matmul(q, k.transpose(1, 2)) / q.shape[-1] ** 0.5
        later = jt.triu(jt.ones((x.shape[1], x.shape[1])), 2)
        scores = scores * (1 - later) - 1e9 * later
        return self.out(jt.matmul(nn.softmax(scores, -1), v))


def mask():
    model = sound()
    model.h[0].attention = LooseMask(16)
    return model


class SwappedGate(FeedForward):
    def execute(self, x):
        gate = self.up_proj(x)
        return self.down_proj(gate * jt.sigmoid(gate) * self.gate_proj(x))


def gate():
    model = sound()
    model.h[1].feed = SwappedGate(16)
    return model


class Shifted(Language):
    def execute(self, tokens):
        x = self.wte(tokens) + self.wpe(jt.arange(tokens.shape[1]) + 1)
        for layer in self.h:
            x = layer(x)
        return jt.matmul(self.norm_f(x), self.wte.weight.transpose())


def positions():
    return Shifted()
