"""Hints for layers: axis, bias, weight transposed, activation, padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import erf

from diptych.align.ports.guesses import LEAST, explains
from diptych.align.ports.hints.case import Case, Hint
from diptych.align.ports.hints.norms import axes_of, normed
from diptych.types import Array


def axis(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """A softmax or a norm along another axis."""
    x = case.given()
    if x is None or x.shape != y.shape:
        return
    if "softmax" in case.kind:
        for axis in range(x.ndim):
            e = np.exp(x - x.max(axis, keepdims=True))
            if explains(y, z, e / e.sum(axis, keepdims=True)):
                yield {"key": "axis", "axis": axis}
                return
    if "norm" in case.kind:
        for axes in axes_of(case, x)[1:]:
            guess = normed(case, x, float(case.settings.get("eps", 1e-5)), axes)
            if guess is not None and explains(y, z, guess):
                yield {"key": "axis", "axis": str(axes)}
                return


def bias(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The bias is missing, or was added twice."""
    b = case.weight("bias")
    if b is None or b.ndim != 1 or (case.rung == "operators" and not case.tensor.endswith("/y")):
        return
    for axis in (1, y.ndim - 1):
        if 0 < axis + 1 <= y.ndim and y.shape[axis] == b.size:
            shape = [1] * y.ndim
            shape[axis] = -1
            if explains(y, z, y - b.reshape(shape)):
                yield {"key": "no_bias"}
                return
            if explains(y, z, y + b.reshape(shape)):
                yield {"key": "twice_bias"}
                return


def matrix(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """A square weight used transposed."""
    x, w, b = case.given(), case.weight("weight"), case.weight("bias")
    if x is None or w is None or w.ndim != 2 or w.shape[0] != w.shape[1]:
        return
    if x.shape[-1] != w.shape[0]:
        return
    if explains(y, z, x @ w + (0 if b is None else b)):
        yield {"key": "transposed"}


ROOT = math.sqrt(2 / math.pi)
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "ReLU": lambda x: np.maximum(x, 0),
    "GELU (exact)": lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
    "GELU (tanh)": lambda x: 0.5 * x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3))),
    "GELU (sigmoid)": lambda x: x / (1 + np.exp(-1.702 * x)),
    "SiLU": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "leaky ReLU (0.01)": lambda x: np.where(x > 0, x, 0.01 * x),
    "leaky ReLU (0.2)": lambda x: np.where(x > 0, x, 0.2 * x),
    "the identity": lambda x: x,
}


def activation(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Another activation, or one more at the end."""
    with np.errstate(over="ignore"):
        x = case.given()
        if x is not None and x.shape == y.shape:
            for name, function in ACTIVATIONS.items():
                if explains(y, z, function(x)):
                    yield {"key": "activation", "name": name}
                    return
        for name, function in list(ACTIVATIONS.items())[:-1]:
            if explains(y, z, function(y)):
                yield {"key": "activation_after", "name": name}
                return


def padding(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The same pixels, moved by one: the padding lies on the other side."""
    if y.ndim < 3 or ("conv" not in case.kind and "pool" not in case.kind):
        return
    x, w, b = case.given(), case.weight("weight"), case.weight("bias")
    if x is not None and w is not None and w.ndim == y.ndim == 4:
        for side, guess in _convolved(case, x, w, b, y.shape):
            if explains(y, z, guess):
                yield {"key": "padding", "side": side}
                return
    inner = tuple(slice(1, -1) for _ in range(y.ndim - 2))
    if all(n > 2 for n in y.shape[2:]):
        place: Any = (Ellipsis, *inner)
        a, c = y[place], z[place]
        scale = max(float(np.abs(y).max()), 1e-300)
        if np.abs(a - c).max() < LEAST * scale:
            yield {"key": "border"}


def _convolved(
    case: Case, x: Array, w: Array, b: Array | None, shape: tuple[int, ...]
) -> Iterator[tuple[str, Array]]:
    """A convolution with its padding on one side only."""
    stride = case.settings.get("stride", 1)
    stride = stride[0] if isinstance(stride, list) else stride
    if case.settings.get("groups", 1) != 1 or not isinstance(stride, int):
        return
    if x.ndim != 4 or x.shape[1] != w.shape[1] or "transpose" in case.kind:
        return
    k = w.shape[2]
    for total in range(0, k + 1):
        for side, ends in (
            ("above and left", (total, 0)),
            ("below and right", (0, total)),
            ("both sides", (total, total)),
        ):
            wide = np.pad(x, ((0, 0), (0, 0), ends, ends))
            if min(wide.shape[2:]) < k:
                continue
            view: Any = np.lib.stride_tricks.sliding_window_view
            windows = view(wide, (k, w.shape[3]), axis=(2, 3))
            windows = windows[:, :, ::stride, ::stride]
            if windows.shape[2:4] != shape[2:]:
                continue
            guess = np.einsum("bchwij,ocij->bohw", windows, w, optimize=True)
            yield side, guess + (0 if b is None else b.reshape(1, -1, 1, 1))
