"""Every layer and its gradients in NumPy float64, from the formulas: the tests' ground truth.

A function takes the layer's inputs, its weights and the gradient g of its output, and returns
[output, gradient of each input ..., gradient of each weight ...].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

A = npt.NDArray[Any]
GROUPS, EPS = 32, 1e-6


def sigmoid(x: A) -> A:
    return 1 / (1 + np.exp(-x))


def conv2d(x: A, w: A, b: A, g: A, stride: int = 1, pad: tuple[int, int] = (1, 1)) -> list[A]:
    padded = np.pad(x, ((0, 0), (0, 0), pad, pad))
    height, width = ((n - w.shape[2]) // stride + 1 for n in padded.shape[2:])
    y = np.zeros((len(x), len(w), height, width)) + b[:, None, None]
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(w.shape[2]):
        for j in range(w.shape[3]):
            rows = slice(i, i + stride * height, stride)
            columns = slice(j, j + stride * width, stride)
            seen = padded[:, :, rows, columns][:, :, :height, :width]
            y += np.einsum("oc,bchw->bohw", w[:, :, i, j], seen)
            dw[:, :, i, j] = np.einsum("bohw,bchw->oc", g, seen)
            dpadded[:, :, rows, columns] += np.einsum("oc,bohw->bchw", w[:, :, i, j], g)
    end = [n + pad[0] for n in x.shape[2:]]
    return [y, dpadded[:, :, pad[0] : end[0], pad[0] : end[1]], dw, g.sum((0, 2, 3))]


def group_norm(
    x: A, shift: A | None, w: A, b: A, g: A, act: bool, groups: int = GROUPS, eps: float = EPS
) -> list[A]:
    x = x if shift is None else x + shift[:, :, None, None]
    grouped = (len(x), groups, -1)

    def mean(values: A) -> A:
        average = values.reshape(grouped).mean(2, keepdims=True)
        return np.broadcast_to(average, values.reshape(grouped).shape).reshape(x.shape)

    centred = x - mean(x)
    rstd = 1 / np.sqrt(mean(centred**2) + eps)
    h = centred * rstd
    z = h * w[:, None, None] + b[:, None, None]
    y = z * sigmoid(z) if act else z
    dz = g * sigmoid(z) * (1 + z * (1 - sigmoid(z))) if act else g
    dh = dz * w[:, None, None]
    dx = rstd * (dh - mean(dh) - h * mean(dh * h))
    dshift = dx.sum((2, 3))
    if shift is not None and len(shift) == 1:
        dshift = dshift.sum(0, keepdims=True)
    return [y, dx, *([] if shift is None else [dshift]), (dz * h).sum((0, 2, 3)), dz.sum((0, 2, 3))]


def linear(x: A, w: A, b: A, g: A) -> list[A]:
    return [x @ w.T + b, g @ w, g.T @ x, g.sum(0)]


def silu(x: A, g: A) -> list[A]:
    s = sigmoid(x)
    return [x * s, g * s * (1 + x * (1 - s))]


def attention(q: A, k: A, v: A, g: A) -> list[A]:
    q_, k_, v_, g_ = (x.reshape(*x.shape[:2], -1) for x in (q, k, v, g))
    scale = q.shape[1] ** -0.5
    scores = scale * np.einsum("bci,bcj->bij", q_, k_)
    e = np.exp(scores - scores.max(2, keepdims=True))
    a = e / e.sum(2, keepdims=True)
    da = np.einsum("bci,bcj->bij", g_, v_)
    ds = scale * a * (da - (a * da).sum(2, keepdims=True))
    y = np.einsum("bcj,bij->bci", v_, a)
    dq = np.einsum("bcj,bij->bci", k_, ds)
    dk = np.einsum("bci,bij->bcj", q_, ds)
    dv = np.einsum("bci,bij->bcj", g_, a)
    return [array.reshape(q.shape) for array in (y, dq, dk, dv)]


def upsample(x: A, g: A) -> list[A]:
    return [x.repeat(2, 2).repeat(2, 3), _squares(g).sum((3, 5))]


def avg_pool(x: A, g: A) -> list[A]:
    return [_squares(x).mean((3, 5)), g.repeat(2, 2).repeat(2, 3) / 4]


def _squares(x: A) -> A:
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2)


def concat(a: A, b: A, g: A) -> list[A]:
    return [np.concatenate([a, b], 1), g[:, : a.shape[1]], g[:, a.shape[1] :]]


def add(a: A, b: A, g: A) -> list[A]:
    return [a + b, g, g]


def dropout(x: A, mask: A, rate: float, g: A) -> list[A]:
    return [x * mask / (1 - rate), g * mask / (1 - rate)]


def adam_step(
    state: list[list[A]], gradients: list[A], step: int, numbers: dict[str, float]
) -> float:
    """Clip, Adam and EMA on state = [params, m, v, ema], in place; returns the unclipped norm."""
    norm = float(np.sqrt(sum((g**2).sum() for g in gradients)))
    clip = min(1.0, numbers["max_norm"] / (norm + 1e-6))
    b1, b2 = numbers["beta1"], numbers["beta2"]
    for p, m, v, e, g in zip(*state, gradients, strict=True):
        m[...] = b1 * m + (1 - b1) * clip * g
        v[...] = b2 * v + (1 - b2) * (clip * g) ** 2
        root = np.sqrt(v / (1 - b2**step))
        p[...] -= numbers["lr"] * m / (1 - b1**step) / (root + numbers["eps"])
        e[...] = numbers["ema_rate"] * e + (1 - numbers["ema_rate"]) * p
    return norm
