"""Numbers about losses, each a plain function of the records.

    relative difference   |a - b| / max(|a|, |b|), 0 where both are 0
    last tenth            the last tenth of a run's steps, one step at least
    end of two runs       the last tenth of the range of steps that both recorded

A longer run is not compared with a shorter one at its own end: its later losses are lower because
it trained for longer. Ratios and their intervals: `diptych.stats`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.runs.reader import Series
from diptych.stats import ratio
from diptych.types import Float64, Int64

STRIDE = 200
THRESHOLDS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
# Half a unit in the last place of a float32: a smaller difference of two losses counts as none.
ROUNDING = 2.0**-24

Numbers = dict[str, Any]


def relative_difference(a: Float64, b: Float64) -> Float64:
    """|a - b| / max(|a|, |b|), elementwise, in [0, 2]; 0 if both are 0, NaN if either is NaN."""
    scale = np.maximum(np.abs(a), np.abs(b))
    gap = np.abs(a - b)
    return np.divide(gap, scale, out=np.where(np.isnan(scale), np.nan, 0.0), where=scale > 0)


def common_steps(a: Series, b: Series) -> tuple[Int64, Int64] | None:
    """The indices in each run of the steps that both recorded; None if there are none."""
    both, in_a, in_b = np.intersect1d(a.step, b.step, assume_unique=True, return_indices=True)
    return (in_a, in_b) if both.size else None


def step_differences(a: Series, b: Series) -> Numbers | None:
    """The step-by-step differences over the common steps; None if there is no common step."""
    common = common_steps(a, b)
    if common is None:
        return None
    in_a, in_b = common
    step = a.step[in_a]
    loss = _differences(step, a.loss[in_a], b.loss[in_b])
    return {
        "steps": int(step.size),
        "first_step": int(step[0]),
        "last_step": int(step[-1]),
        "loss": loss,
        "grad_norm": _differences(step, a.grad_norm[in_a], b.grad_norm[in_b]),
        "every_200": _every(STRIDE, step, a.loss[in_a], b.loss[in_b]),
    }


def _differences(step: Int64, a: Float64, b: Float64) -> Numbers | None:
    relative = relative_difference(a, b)
    known = np.isfinite(relative)
    if not known.any():
        return None
    step, relative, a, b = step[known], relative[known], a[known], b[known]
    worst = int(np.argmax(relative))
    tenth = max(1, step.size // 10)
    return {
        "compared": int(step.size),
        "max_relative": float(relative[worst]),
        "max_relative_step": int(step[worst]),
        "median_relative": float(np.median(relative)),
        "p99_relative": float(np.percentile(relative, 99)),
        "max_absolute": float(np.max(np.abs(a - b))),
        "equal": int(np.count_nonzero(a == b)),
        "tenth_steps": tenth,
        "median_relative_first_tenth": float(np.median(relative[:tenth])),
        "median_relative_last_tenth": float(np.median(relative[-tenth:])),
        "above": [_above(limit, step, relative) for limit in THRESHOLDS],
    }


def _above(limit: float, step: Int64, relative: Float64) -> Numbers:
    over = step[relative > limit]
    return {"limit": limit, "steps": int(over.size), "first": int(over[0]) if over.size else None}


def _every(stride: int, step: Int64, a: Float64, b: Float64) -> list[Numbers]:
    at = np.flatnonzero(step % stride == 0)
    columns = {"a": a[at], "b": b[at], "relative": relative_difference(a[at], b[at])}
    return [
        {"step": int(step[k])} | {key: finite(values[i]) for key, values in columns.items()}
        for i, k in enumerate(at)
    ]


def finite(value: float) -> float | None:
    """The number for JSON, with None in place of a NaN or an infinity."""
    return float(value) if math.isfinite(value) else None


def loss_summary(run: Series) -> Numbers:
    """The distribution of one run's losses over all steps, and their mean over the last tenth."""
    known = np.isfinite(run.loss)
    bad = run.step[~known]
    tail = _last_tenth(run)
    values = run.loss[known]
    quantiles = np.percentile(values, (5, 50, 95)) if values.size else [math.nan] * 3
    return {
        "steps": int(run.step.size),
        "first_step": int(run.step[0]),
        "last_step": int(run.step[-1]),
        "first": finite(run.loss[0]),
        "last": finite(run.loss[-1]),
        "p5": finite(quantiles[0]),
        "median": finite(quantiles[1]),
        "p95": finite(quantiles[2]),
        "last_tenth_steps": int(tail.size),
        "last_tenth_mean": finite(float(np.mean(tail))) if tail.size else None,
        "not_finite": int(bad.size),
        "not_finite_first": int(bad[0]) if bad.size else None,
    }


def _last_tenth(run: Series) -> Float64:
    tail = run.loss[-max(1, run.loss.size // 10) :]
    known: Float64 = tail[np.isfinite(tail)]
    return known


def loss_end(a: Series, b: Series, with_ratio: bool) -> Numbers | None:
    """The mean losses of the last steps that both reached; None if either has none there.

    Args:
        with_ratio: add B's mean over A's with its interval, for runs that are not compared step
            by step.
    """
    first, high, tails = _tails(a, b)
    if not all(tail.size for tail in tails):
        return None
    return {
        "first_step": first,
        "last_step": high,
        "whole": bool(a.step[0] == b.step[0] and a.step[-1] == b.step[-1]),
        "a": {"steps": int(tails[0].size), "mean": float(np.mean(tails[0]))},
        "b": {"steps": int(tails[1].size), "mean": float(np.mean(tails[1]))},
        "ratio": ratio(tails[0], tails[1], _mean) if with_ratio else None,
    }


def end_ratio(a: Series, b: Series, paired: bool) -> Numbers | None:
    """B's mean loss over A's at the end that both reached, with its interval; None if undefined.

    Args:
        paired: the steps share their random numbers, so the same blocks of steps are drawn for
            both; steps with a loss that is not finite count for neither.
    """
    if not paired:
        _, _, (one, other) = _tails(a, b)
        return ratio(one, other, _mean)
    common = common_steps(a, b)
    if common is None:
        return None
    first, high, _ = _tails(a, b)
    at = (a.step[common[0]] >= first) & (a.step[common[0]] <= high)
    one, other = a.loss[common[0]][at], b.loss[common[1]][at]
    known = np.isfinite(one) & np.isfinite(other)
    return ratio(one[known], other[known], _mean, paired=True)


def _mean(values: Float64) -> Any:
    return np.mean(values, axis=-1)


def _tails(a: Series, b: Series) -> tuple[int, int, list[Float64]]:
    """The first and last step of the end that both reached, and the finite losses there."""
    low, high = int(max(a.step[0], b.step[0])), int(min(a.step[-1], b.step[-1]))
    first = high - max(1, (high - low + 1) // 10) + 1
    tails = []
    for run in (a, b):
        values = run.loss[(run.step >= first) & (run.step <= high) & (low <= high)]
        tails.append(values[np.isfinite(values)])
    return first, high, tails
