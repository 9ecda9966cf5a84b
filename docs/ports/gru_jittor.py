"""The sequence classifier of gru_torch.py in Jittor, its cells written out."""

import jittor as jt
from jittor import nn


class Gru(nn.Module):
    def __init__(self, inward, width):
        super().__init__()
        self.weight_ih_l0 = jt.randn(3 * width, inward) * 0.1
        self.weight_hh_l0 = jt.randn(3 * width, width) * 0.1
        self.bias_ih_l0, self.bias_hh_l0 = jt.zeros(3 * width), jt.zeros(3 * width)
        self.width = width

    def execute(self, x):
        h = jt.zeros((x.shape[0], self.width))
        rows = []
        for i in range(x.shape[1]):
            a = jt.matmul(x[:, i], self.weight_ih_l0.transpose()) + self.bias_ih_l0
            b = jt.matmul(h, self.weight_hh_l0.transpose()) + self.bias_hh_l0
            (ar, az, an), (br, bz, bn) = a.chunk(3, 1), b.chunk(3, 1)
            r, z = jt.sigmoid(ar + br), jt.sigmoid(az + bz)
            n = jt.tanh(an + r * bn)
            h = (1 - z) * n + z * h
            rows.append(h)
        return jt.stack(rows, 1), h


class Lstm(nn.Module):
    def __init__(self, inward, width):
        super().__init__()
        self.weight_ih_l0 = jt.randn(4 * width, inward) * 0.1
        self.weight_hh_l0 = jt.randn(4 * width, width) * 0.1
        self.bias_ih_l0, self.bias_hh_l0 = jt.zeros(4 * width), jt.zeros(4 * width)
        self.width = width

    def gates(self, pre):
        i, f, g, o = pre.chunk(4, 1)
        return jt.sigmoid(i), jt.sigmoid(f), jt.tanh(g), jt.sigmoid(o)

    def execute(self, x):
        h = c = jt.zeros((x.shape[0], self.width))
        rows = []
        for k in range(x.shape[1]):
            pre = jt.matmul(x[:, k], self.weight_ih_l0.transpose()) + self.bias_ih_l0
            pre = pre + jt.matmul(h, self.weight_hh_l0.transpose()) + self.bias_hh_l0
            i, f, g, o = self.gates(pre)
            c = f * c + i * g
            h = o * jt.tanh(c)
            rows.append(h)
        return jt.stack(rows, 1), (h, c)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.input = nn.Linear(6, 12)
        self.first = Gru(12, 16)
        self.between = nn.LayerNorm(16)
        self.second = Lstm(16, 16)
        self.output = nn.Linear(16, 5)

    def execute(self, x):
        h, _ = self.first(jt.tanh(self.input(x)))
        h, _ = self.second(self.between(h))
        return self.output(h[:, -1])


def build():
    return Recurrent()


def optimizer(model):
    return nn.SGD(model.parameters(), lr=0.05)
