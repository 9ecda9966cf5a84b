"""Faults planted into docs/ports/gru_jittor.py."""

import jittor as jt
from gru_jittor import Gru, Lstm, Recurrent, optimizer
from gru_jittor import build as sound
from jittor import nn

__all__ = ["optimizer"]


class SwappedGates(Gru):
    def execute(self, x):
        h = jt.zeros((x.shape[0], self.width))
        rows = []
        for i in range(x.shape[1]):
            a = jt.matmul(x[:, i], self.weight_ih_l0.transpose()) + self.bias_ih_l0
            b = jt.matmul(h, self.weight_hh_l0.transpose()) + self.bias_hh_l0
            (az, ar, an), (bz, br, bn) = a.chunk(3, 1), b.chunk(3, 1)
            r, z = jt.sigmoid(ar + br), jt.sigmoid(az + bz)
            n = jt.tanh(an + r * bn)
            h = (1 - z) * n + z * h
            rows.append(h)
        return jt.stack(rows, 1), h


def gate_order():
    model = sound()
    model.first = SwappedGates(12, 16)
    return model


class ResetBefore(Gru):
    """The reset gate works on the state, as in the first paper and in Keras."""

    def execute(self, x):
        h = jt.zeros((x.shape[0], self.width))
        w = self.width
        rows = []
        for i in range(x.shape[1]):
            a = jt.matmul(x[:, i], self.weight_ih_l0.transpose()) + self.bias_ih_l0
            b = jt.matmul(h, self.weight_hh_l0.transpose()) + self.bias_hh_l0
            (ar, az, an), (br, bz, _) = a.chunk(3, 1), b.chunk(3, 1)
            r, z = jt.sigmoid(ar + br), jt.sigmoid(az + bz)
            bn = jt.matmul(r * h, self.weight_hh_l0[2 * w :].transpose()) + self.bias_hh_l0[2 * w :]
            n = jt.tanh(an + bn)
            h = (1 - z) * n + z * h
            rows.append(h)
        return jt.stack(rows, 1), h


def reset_before():
    model = sound()
    model.first = ResetBefore(12, 16)
    return model


class ForgetBias(Lstm):
    def gates(self, pre):
        i, f, g, o = pre.chunk(4, 1)
        return jt.sigmoid(i), jt.sigmoid(f + 1.0), jt.tanh(g), jt.sigmoid(o)


def forget_bias():
    model = sound()
    model.second = ForgetBias(16, 16)
    return model


class Half(nn.Linear):
    def execute(self, x):
        half = jt.matmul(x.float16(), self.weight.float16().transpose())
        return half.float32() + self.bias


def half():
    model = sound()
    model.input = Half(6, 12)
    return model


class FirstStep(Recurrent):
    def execute(self, x):
        h, _ = self.first(jt.tanh(self.input(x)))
        h, _ = self.second(self.between(h))
        return self.output(h[:, 0])


def first_step():
    return FirstStep()
