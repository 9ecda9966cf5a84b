"""Hints: which usual fault would leave this signature. A hint is a lead, never a claim.

Each test computes what the reference's layer would give with one thing changed (another eps,
another axis, no bias, the weight transposed, statistics of the batch, the padding on the other
side, fewer digits), and compares it with what the port gave. A hint is told only if the change
explains almost all of the error (99 % of it, or all but a few roundings). A test that cannot run on
a layer (it raises) says nothing; it must not hide the verdict.

Above 400 lines: one short test a fault.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import erf

from diptych.align.ladder.floors import bare
from diptych.align.ladder.judge import Reason
from diptych.align.ladder.trace import Rung
from diptych.align.ports import optimizers
from diptych.align.ports.guesses import LEAST, explains
from diptych.types import Array

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """A failing tensor and all that is known of its layer."""

    layer: str
    call: Mapping[str, Any]
    port_call: Mapping[str, Any]
    tensor: str
    rung: str
    truth: Rung
    port: Rung
    weights: Mapping[str, Array]
    about: Mapping[str, Any]
    subject: Mapping[str, Any]
    text: str = ""
    inputs: Array | None = None
    alone: bool = True  # False: code that leads to the layer, which is not seen, may be wrong too
    reason: Reason = ""

    def weight(self, name: str) -> Array | None:
        """A weight of the layer in float64."""
        base = self.layer.partition("#")[0]
        found = self.weights.get(f"{base}.{name}")
        return None if found is None else found.astype(np.float64)

    def given(self) -> Array | None:
        """The layer's first input, as it was run on; only if the tensor is its output."""
        own = self.rung != "operators" or self.tensor.endswith("/y")
        return self.inputs if own else None

    @property
    def training(self) -> bool:
        return self.rung == "operators" or "training" in self.tensor

    @property
    def kind(self) -> str:
        return str(self.call.get("kind", "")).lower()

    @property
    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.call.get("settings", {})
        return found


Hint = dict[str, Any]  # key of a text, and its numbers


def hints_for(case: Case) -> list[Hint]:
    """All hints that the failing tensor supports, the most telling first."""
    found: list[Hint] = []
    if case.subject["stopped"] and not case.about["stopped"]:
        found.append({"key": "stopped"})
    if case.text:
        found += _of_reason(case)
        return found
    y, z = (r.arrays.get(case.tensor) for r in (case.truth, case.port))
    if y is None or z is None:
        return found
    from diptych.align.ports.passes import fit

    laid = fit(z, y.shape)
    if laid is None or not y.size:
        return found
    y, z = y.astype(np.float64), laid.astype(np.float64)
    if (bad := ~np.isfinite(z) & np.isfinite(y)).any():
        return [*found, {"key": "not_finite", "count": int(np.sum(bad))}]
    if not (np.isfinite(y) & np.isfinite(z)).all():
        return found
    tests: tuple[Callable[[Case, Array, Array], Iterator[Hint]], ...] = {
        "weights": (_weight, _digits),
        "gradients": (_gradient,),
        "loss": (_scale,),
        "operators": (_norm, _axis, _bias, _matrix, _activation, _padding, _digits, _scale, _order),
        "layers": (
            _buffer,
            _norm,
            _statistics,
            _axis,
            _bias,
            _matrix,
            _activation,
            _padding,
            _digits,
            _scale,
            _order,
        ),
        "update": (_rule, _adam, _scale),
        "lockstep": (),
    }.get(case.rung, ())
    for test in tests:
        try:
            told = list(test(case, y, z))
        except Exception as error:  # a layer of another make than the test knows
            log.info("hint %s could not be tested (%r); the verdict stands", test.__name__, error)
            continue
        found += [hint for hint in told if hint not in found]
        if found and test in (
            _norm,
            _statistics,
            _bias,
            _matrix,
            _activation,
            _padding,
            _digits,
            _axis,
            _buffer,
            _rule,
        ):
            break
    return found[:3] or [{"key": "settings", **d} for d in _settings(case)][:3]


def _of_reason(case: Case) -> Iterator[Hint]:
    if case.reason in ("rule", "layout"):
        yield {"key": "transposed_shape"}
    if case.reason == "untied":
        yield {"key": "untied"}
    elif case.tensor.endswith("bias") and case.tensor in case.subject["match"]["left_reference"]:
        yield {"key": "no_bias"}
    if case.reason in ("shape", "layout"):
        yield {"key": "shape"}


def _weight(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The weight turned, or another weight of the reference in its place."""
    if y.ndim == 2 and y.shape[0] == y.shape[1] and np.array_equal(z, y.T):
        yield {"key": "transposed"}
    for name, other in case.weights.items():
        if name != case.tensor and other.shape == z.shape and np.array_equal(z, other):
            yield {"key": "another_weight", "name": name}
            return


def _rounded(values: Array, bits: int) -> Array:
    """The values with so many bits of mantissa."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0 ** (bits + 1)) / 2.0 ** (bits + 1), exponent)


def _digits(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Half precision: what came out has few bits, or the error is theirs everywhere."""
    scale = max(float(np.abs(y).max()), 1e-300)
    error = float(np.abs(z - y).max()) / scale
    for name, bits in (("bfloat16", 7), ("float16", 10)):
        if error < 8 * 2.0**-bits and np.array_equal(z, _rounded(z, bits)) and z.size > 1:
            yield {"key": "dtype", "dtype": name}
            return
    x, w = case.given(), case.weight("weight")
    if x is not None and w is not None and w.ndim == 2 and "linear" in case.kind:
        b = case.weight("bias")
        for name, bits in (("bfloat16", 7), ("float16", 10)):
            guess = _rounded(x, bits) @ _rounded(w, bits).T + (0 if b is None else b)
            if guess.shape == z.shape and np.abs(guess - z).max() < 0.3 * np.abs(z - y).max():
                yield {"key": "dtype", "dtype": name}
                return
    if (
        case.alone
        and 2.0**-13 < error < 2.0**-6
        and np.corrcoef(z.ravel(), y.ravel())[0, 1] > 0.9999
        and z.size > 2
    ):
        yield {"key": "dtype_like", "error": error}


def _axes(case: Case, x: Array) -> list[tuple[int, ...]]:
    """Axes that a norm may run over, the reference's first."""
    if "batch" in case.kind or "instance" in case.kind:
        return [(0, *range(2, x.ndim)), (0,), tuple(range(2, x.ndim)) or (0,)]
    return [(-1,), (1,), tuple(range(1, x.ndim))]


def _affine(case: Case, x: Array, axes: tuple[int, ...]) -> tuple[Array | float, Array | float]:
    w, b = case.weight("weight"), case.weight("bias")
    shape = [1] * x.ndim
    on_channels = "layer" not in case.kind and "rms" not in case.kind and x.ndim > 1
    shape[1 if on_channels else -1] = -1
    one = 1.0 if w is None else w
    zero = 0.0 if b is None else b
    try:
        return (one if w is None else w.reshape(shape)), (zero if b is None else b.reshape(shape))
    except ValueError:
        return one, zero


def _normed(case: Case, x: Array, eps: float, axes: tuple[int, ...], ddof: int = 0) -> Array | None:
    """A norm of the reference's kind with other settings."""
    groups = case.settings.get("num_groups")
    w, b = _affine(case, x, axes)
    try:
        if groups and x.ndim > 1:
            rows = x.reshape(x.shape[0], int(groups), -1)
            mean, var = rows.mean(-1, keepdims=True), rows.var(-1, keepdims=True, ddof=ddof)
            return np.asarray(((rows - mean) / np.sqrt(var + eps)).reshape(x.shape) * w + b)
        if "rms" in case.kind:
            return np.asarray(x / np.sqrt((x * x).mean(axes, keepdims=True) + eps) * w + b)
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True, ddof=ddof)
        return np.asarray((x - mean) / np.sqrt(var + eps) * w + b)
    except (ValueError, ZeroDivisionError):
        return None


def _norm(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Another eps, the deviation over n - 1, or no affine part."""
    if "norm" not in case.kind:
        return
    x = case.given()
    own = float(case.settings.get("eps", case.settings.get("variance_epsilon", 1e-5)) or 0)
    if x is None or x.shape != y.shape:
        return
    axes = _axes(case, x)[0]
    running = case.weight("running_mean"), case.weight("running_var")
    batch = running[1] is not None and not case.training
    guess: Array | None
    left: dict[float, float] = {}  # of the error, by eps; several explain a small one
    for eps in sorted({1e-3, 1e-5, 1e-6, 1e-8, 1e-12, 1e-2, 1e-4, 1e-7, 0.0} - {own}):
        if batch:
            guess = _running(case, x, running, eps)
        else:
            guess = _normed(case, x, eps, axes)
        if guess is not None and explains(y, z, guess):
            left[eps] = float(np.square(z - guess).sum())
    if left:
        yield {"key": "eps", "eps": min(left, key=left.__getitem__), "own": own}
        return
    if not batch:
        guess = _normed(case, x, own, axes, ddof=1)
        if guess is not None and explains(y, z, guess):
            yield {"key": "unbiased"}


def _running(case: Case, x: Array, running: Any, eps: float) -> Array | None:
    """A batch norm by its running statistics; None if the channels are not the second axis."""
    if x.ndim < 2 or x.shape[1] != running[1].size:
        return None
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = (r.reshape(shape) for r in running)
    w, b = _affine(case, x, ())
    return np.asarray((x - mean) / np.sqrt(var + eps) * w + b)


def _statistics(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The batch's statistics in place of the running ones, or the other way."""
    x, running = case.given(), (case.weight("running_mean"), case.weight("running_var"))
    if x is None or running[1] is None or x.shape != y.shape:
        return
    eps = float(case.settings.get("eps", 1e-5))
    if case.training:
        guess: Array | None = _running(case, x, running, eps)
    else:
        guess = _normed(case, x, eps, _axes(case, x)[0])
    if guess is not None and explains(y, z, guess):
        yield {"key": "mode_eval" if case.training else "mode_train"}


def _buffer(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Running statistics after a step: their momentum, or the variance over n in place of n - 1."""
    kind, _, name = bare(case.tensor).partition("/")
    if kind != "buffer":
        return
    before = case.weights.get(name)
    if before is None:
        return
    moved, theirs = y - before, z - before
    share = float(np.sum(moved * theirs) / max(float(np.sum(moved * moved)), 1e-300))
    x = case.given()
    momentum = float(case.settings.get("momentum", 0.1) or 0.1)
    if name.endswith("var") and x is not None:
        n = x.size // x.shape[1]
        fresh = (y - (1 - momentum) * before) / momentum
        if explains(y, z, (1 - momentum) * before + momentum * fresh * (n - 1) / n):
            yield {"key": "biased_variance", "n": n}
            return
    if explains(y, z, before + share * moved):
        yield {"key": "momentum", "momentum": round(momentum * share, 4), "own": momentum}


def _axis(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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
        for axes in _axes(case, x)[1:]:
            guess = _normed(case, x, float(case.settings.get("eps", 1e-5)), axes)
            if guess is not None and explains(y, z, guess):
                yield {"key": "axis", "axis": str(axes)}
                return


def _bias(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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


def _matrix(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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


def _activation(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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


def _padding(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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


def _scale(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """A constant factor."""
    square = float(np.sum(y * y))
    factor = float(np.sum(y * z)) / square if square else 1.0
    if (y.size > 2 and abs(factor - 1) > 1e-4 and explains(y, z, factor * y)) or (
        y.size == 1 and square
    ):
        yield {"key": "factor", "factor": factor}


def _order(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The same values in another order: a reshape or a permutation."""
    scale = max(float(np.abs(y).max()), 1e-300)
    a, b = np.sort(y.ravel()), np.sort(z.ravel())
    if y.size > 4 and np.abs(a - b).max() < LEAST * scale and np.abs(y - z).max() > 1e-3 * scale:
        yield {"key": "order"}


def _gradient(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """No gradient at all, or a constant factor."""
    if not np.any(z) and np.any(y):
        yield {"key": "no_gradient"}
    else:
        yield from _scale(case, y, z)


def _rule(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The reference's optimizer with one usual mistake."""
    from diptych.align.ports.passes import given_gradient

    name = case.tensor.partition("/")[2]
    rule = optimizers.rule_of(case.about.get("optimizer") or {})
    if rule is None or name not in case.weights:
        return
    shape = case.weights[name].shape
    rows = [
        np.concatenate([side.arrays[f"step {t}/{name}"].ravel() for t in (1, 2)])
        for side in (case.truth, case.port)
    ]
    given = [given_gradient(name, shape, t) for t in (1, 2)]
    yield from optimizers.mistakes(rule, case.weights[name], given, rows[0], rows[1])


def _adam(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The eps of Adam that would give this first step: lr g / (|g| + eps)."""
    from diptych.align.ports.passes import given_gradient

    name = case.tensor.partition("/")[2]
    g = np.abs(given_gradient(name, y.shape, 1).astype(np.float64))
    small = (g < 1e-3) & (np.abs(y) > 0) & (np.abs(z) > 0)
    if case.tensor.startswith("step 1/") and small.any():
        ratio = np.abs(y[small]) / np.abs(z[small])
        eps = np.median((ratio - 1) * g[small]) + 1e-8
        left = np.abs(ratio - 1 - (eps - 1e-8) / g[small])
        if 5e-8 < eps < 1e-3 and np.median(left) < 0.1 * np.median(np.abs(ratio - 1)):
            yield {"key": "adam_eps", "eps": float(eps), "times": float(eps / 1e-8)}
            return
    if case.weights.get(name) is not None:
        w = case.weights[name].astype(np.float64)
        apart = z - y
        share = float(np.sum(apart * w) / max(float(np.sum(w * w)), 1e-300))
        if abs(share) > 1e-9 and explains(y, z, y + share * w):
            yield {"key": "decay", "share": share}


def _settings(case: Case) -> Iterator[Hint]:
    """Settings of the same name that differ between the two layers."""
    theirs = case.port_call.get("settings", {})
    for key, value in case.settings.items():
        if key in theirs and theirs[key] != value and not _same(theirs[key], value):
            yield {"setting": key, "own": str(value), "other": str(theirs[key])}


def _same(a: Any, b: Any) -> bool:
    """1 and [1, 1] are the same kernel."""
    rows = [list(v) if isinstance(v, list | tuple) else [v, v] for v in (a, b)]
    return rows[0] == rows[1]
