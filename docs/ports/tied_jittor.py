"""The language model of tied_torch.py in Jittor."""

import jittor as jt
from jittor import nn
from own_jittor import Adam


class RootNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps, self.scale = eps, jt.ones(dim)

    def execute(self, x):
        return x / jt.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.scale


class Attention(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim, bias=False)

    def execute(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = jt.matmul(q, k.transpose(1, 2)) / q.shape[-1] ** 0.5
        later = jt.triu(jt.ones((x.shape[1], x.shape[1])), 1)
        scores = scores * (1 - later) - 1e9 * later
        return self.out(jt.matmul(nn.softmax(scores, -1), v))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gate_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.up_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.down_proj = nn.Linear(2 * dim, dim, bias=False)

    def execute(self, x):
        gate = self.gate_proj(x)
        return self.down_proj(gate * jt.sigmoid(gate) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm_in = RootNorm(dim)
        self.attention = Attention(dim)
        self.norm_mid = RootNorm(dim)
        self.feed = FeedForward(dim)

    def execute(self, x):
        x = x + self.attention(self.norm_in(x))
        return x + self.feed(self.norm_mid(x))


class Language(nn.Module):
    def __init__(self, words=40, dim=16, length=12):
        super().__init__()
        self.wte = nn.Embedding(words, dim)
        self.wpe = nn.Embedding(length, dim)
        self.h = nn.ModuleList([Layer(dim) for _ in range(2)])
        self.norm_f = RootNorm(dim)

    def execute(self, tokens):
        x = self.wte(tokens) + self.wpe(jt.arange(tokens.shape[1]))
        for layer in self.h:
            x = layer(x)
        return jt.matmul(self.norm_f(x), self.wte.weight.transpose())


def build():
    return Language()


def loss(model, tokens):
    logits = model(tokens)[:, :-1]
    flat = logits.reshape(-1, logits.shape[-1])
    return nn.cross_entropy_loss(flat, tokens[:, 1:].reshape(-1))


def optimizer(model):
    return Adam(model.parameters(), lr=1e-3)
