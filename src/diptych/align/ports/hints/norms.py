"""Hints for norms: eps, axes, which statistics they use, and their buffers after a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from diptych.align.ladder.floors import bare
from diptych.align.ports.guesses import explains
from diptych.align.ports.hints.case import Case, Hint
from diptych.types import Array


def norm(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """Another eps, the deviation over n - 1, or no affine part."""
    if "norm" not in case.kind:
        return
    x = case.given()
    own = float(case.settings.get("eps", case.settings.get("variance_epsilon", 1e-5)) or 0)
    if x is None or x.shape != y.shape:
        return
    axes = axes_of(case, x)[0]
    running = case.weight("running_mean"), case.weight("running_var")
    batch = running[1] is not None and not case.training
    guess: Array | None
    left: dict[float, float] = {}  # of the error, by eps; several explain a small one
    for eps in sorted({1e-3, 1e-5, 1e-6, 1e-8, 1e-12, 1e-2, 1e-4, 1e-7, 0.0} - {own}):
        if batch:
            guess = _running(case, x, running, eps)
        else:
            guess = normed(case, x, eps, axes)
        if guess is not None and explains(y, z, guess):
            left[eps] = float(np.square(z - guess).sum())
    if left:
        yield {"key": "eps", "eps": min(left, key=left.__getitem__), "own": own}
        return
    if not batch:
        guess = normed(case, x, own, axes, ddof=1)
        if guess is not None and explains(y, z, guess):
            yield {"key": "unbiased"}


def axes_of(case: Case, x: Array) -> list[tuple[int, ...]]:
    """Axes that a norm may run over, the reference's first."""
    if "batch" in case.kind or "instance" in case.kind:
        return [(0, *range(2, x.ndim)), (0,), tuple(range(2, x.ndim)) or (0,)]
    return [(-1,), (1,), tuple(range(1, x.ndim))]


def _affine(case: Case, x: Array) -> tuple[Array | float, Array | float]:
    """Weight and bias laid out for x if they fit; 1 and 0 where there are none."""
    w, b = case.weight("weight"), case.weight("bias")
    shape = [1] * x.ndim
    on_channels = "layer" not in case.kind and "rms" not in case.kind and x.ndim > 1
    shape[1 if on_channels else -1] = -1
    try:
        return (1.0 if w is None else w.reshape(shape)), (0.0 if b is None else b.reshape(shape))
    except ValueError:
        return (1.0 if w is None else w), (0.0 if b is None else b)


def normed(case: Case, x: Array, eps: float, axes: tuple[int, ...], ddof: int = 0) -> Array | None:
    """A norm of the reference's kind with other settings."""
    groups = case.settings.get("num_groups")
    w, b = _affine(case, x)
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


def _running(case: Case, x: Array, running: Any, eps: float) -> Array | None:
    """A batch norm by its running statistics; None if the channels are not the second axis."""
    if x.ndim < 2 or x.shape[1] != running[1].size:
        return None
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = (r.reshape(shape) for r in running)
    w, b = _affine(case, x)
    return np.asarray((x - mean) / np.sqrt(var + eps) * w + b)


def statistics(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The batch's statistics in place of the running ones, or the other way."""
    x, running = case.given(), (case.weight("running_mean"), case.weight("running_var"))
    if x is None or running[1] is None or x.shape != y.shape:
        return
    eps = float(case.settings.get("eps", 1e-5))
    if case.training:
        guess: Array | None = _running(case, x, running, eps)
    else:
        guess = normed(case, x, eps, axes_of(case, x)[0])
    if guess is not None and explains(y, z, guess):
        yield {"key": "mode_eval" if case.training else "mode_train"}


def buffer(case: Case, y: Array, z: Array) -> Iterator[Hint]:
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
