"""Hints: which usual fault would leave this signature. A hint is a lead, never a claim.

Each test computes what the reference's layer would give with one thing changed (another eps,
another axis, no bias, the weight transposed, statistics of the batch, the padding on the other
side, fewer digits), and compares it with what the port gave. A hint is told only if the change
explains almost all of the error (99 % of it, or all but a few roundings). A test that cannot run on
a layer (it raises) says nothing; it must not hide the verdict.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from diptych.align.ports.arrays import fit
from diptych.align.ports.hints.case import Case, Hint
from diptych.align.ports.hints.layers import activation, axis, bias, matrix, padding
from diptych.align.ports.hints.norms import buffer, norm, statistics
from diptych.align.ports.hints.update import adam, rule
from diptych.align.ports.hints.values import digits, gradient, order, scale, weight
from diptych.types import Array

log = logging.getLogger(__name__)

Test = Callable[[Case, Array, Array], Iterator[Hint]]

OPERATOR: tuple[Test, ...] = (axis, bias, matrix, activation, padding, digits, scale, order)
TESTS: dict[str, tuple[Test, ...]] = {
    "weights": (weight, digits),
    "gradients": (gradient,),
    "loss": (scale,),
    "operators": (norm, *OPERATOR),
    "layers": (buffer, norm, statistics, *OPERATOR),
    "update": (rule, adam, scale),
}
# What these find needs no other explanation.
DECISIVE: tuple[Test, ...] = (
    norm, statistics, bias, matrix, activation, padding, digits, axis, buffer, rule
)  # fmt: skip


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
    laid = fit(z, y.shape)
    if laid is None or not y.size:
        return found
    y, z = y.astype(np.float64), laid.astype(np.float64)
    if (bad := ~np.isfinite(z) & np.isfinite(y)).any():
        return [*found, {"key": "not_finite", "count": int(np.sum(bad))}]
    if not (np.isfinite(y) & np.isfinite(z)).all():
        return found
    for test in TESTS.get(case.rung, ()):
        try:
            told = list(test(case, y, z))
        except Exception as error:  # a layer of another make than the test knows
            log.info("hint %s could not be tested (%r); the verdict stands", test.__name__, error)
            continue
        found += [hint for hint in told if hint not in found]
        if found and test in DECISIVE:
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
