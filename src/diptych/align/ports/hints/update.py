"""Hints for an optimizer's step: a usual mistake of the rule, Adam's eps, weight decay."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from diptych.align.ports import optimizers
from diptych.align.ports.arrays import given_gradient
from diptych.align.ports.guesses import explains
from diptych.align.ports.hints.case import Case, Hint
from diptych.types import Array


def rule(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The reference's optimizer with one usual mistake."""
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


def adam(case: Case, y: Array, z: Array) -> Iterator[Hint]:
    """The eps of Adam that would give this first step: lr g / (|g| + eps)."""
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
