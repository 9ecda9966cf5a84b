"""The numbers of a comparison, each a plain function of the records.

    relative difference   |a - b| / max(|a|, |b|), 0 where both are 0
    step time             data_s + compute_s of the steps that were synchronised, no others
    outlier               a step slower than OUTLIER times the run's own median
    memory slope          Theil-Sen: the median of the slopes between all pairs of readings of
                          the run's second half; the first fills caches, which is no leak
    last tenth            the last tenth of a run's steps, one step at least; see `loss_end` too

Ratios and their intervals: `diptych.stats`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.runs.reader import Run
from diptych.stats import ratio
from diptych.types import Bool, Float64, Int64

OUTLIER = 5.0
FIRST_STEPS = 20
STRIDE = 200
LEAST_FOR_SLOPE = 20
THRESHOLDS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)

Numbers = dict[str, Any]


def relative_difference(a: Float64, b: Float64) -> Float64:
    """|a - b| / max(|a|, |b|), elementwise, in [0, 2]; 0 where both are 0, NaN where either is."""
    scale = np.maximum(np.abs(a), np.abs(b))
    gap = np.abs(a - b)
    return np.divide(gap, scale, out=np.where(np.isnan(scale), np.nan, 0.0), where=scale > 0)


def common_steps(a: Run, b: Run) -> tuple[Int64, Int64] | None:
    """Where the steps that both runs recorded stand in each, or None where there is none."""
    both, in_a, in_b = np.intersect1d(a.step, b.step, assume_unique=True, return_indices=True)
    return (in_a, in_b) if both.size else None


def difference(a: Run, b: Run) -> Numbers | None:
    """The step-by-step differences over the common steps; None where there is no common step."""
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
    relative = relative_difference(a, b)
    return [
        {
            "step": int(step[i]),
            "a": finite(a[i]),
            "b": finite(b[i]),
            "relative": finite(relative[i]),
        }
        for i in np.flatnonzero(step % stride == 0)
    ]


def finite(value: float) -> float | None:
    """The number for JSON: None in place of a NaN or an infinity."""
    return float(value) if math.isfinite(value) else None


def loss_summary(run: Run) -> Numbers:
    """How the losses of one run are distributed, over all steps and over the last tenth."""
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


def _last_tenth(run: Run) -> Float64:
    tail = run.loss[-max(1, run.loss.size // 10) :]
    known: Float64 = tail[np.isfinite(tail)]
    return known


def step_time(run: Run) -> Numbers | None:
    """Seconds a step over the synchronised steps; None where no step was."""
    time, step = run.step_s[run.synced], run.step[run.synced]
    if time.size == 0:
        return None
    median = float(np.median(time))
    total = float(np.sum(time))
    slow = time > OUTLIER * median
    since = step - np.array(run.starts)[np.searchsorted(run.starts, step, side="left") - 1]
    return {
        "synced_steps": int(time.size),
        "median": median,
        "p95": float(np.percentile(time, 95)),
        "p99": float(np.percentile(time, 99)),
        "max": float(np.max(time)),
        "max_step": int(step[int(np.argmax(time))]),
        "mean": total / time.size,
        "total": total,
        "starts": run.starts,
        "data_share": float(np.sum(run.data_s[run.synced])) / total if total > 0 else 0.0,
        "outliers": _outliers(time, step, slow, median, total),
        "outliers_first_steps": _outliers(time, step, slow & (since <= FIRST_STEPS), median, total),
    }


def _outliers(time: Float64, step: Int64, slow: Bool, median: float, total: float) -> Numbers:
    excess = float(np.sum(time[slow] - median))
    return {
        "steps": [int(s) for s in step[slow]],
        "excess_s": excess,
        "share": excess / total if total > 0 else 0.0,
    }


def step_time_ratio(a: Run, b: Run) -> Numbers | None:
    """B's median step time over A's, with its interval; None where either has no timed step."""
    return ratio(a.step_s[a.synced], b.step_s[b.synced], lambda x: np.median(x, axis=-1))


def epoch_time(run: Run) -> Numbers:
    """Seconds of each complete epoch: the sum over all its steps, synchronised or not.

    An epoch is complete where its first step is recorded and the next epoch has begun, or where
    it has as many steps as the data has batches, or, where that is not recorded, as the others.
    """
    epochs, starts, counts = np.unique(run.epoch, return_index=True, return_counts=True)
    step = np.concatenate(([0], run.step, [-1]))  # before the first step and after the last
    begun = step[starts] + 1 == step[starts + 1]
    ended = step[starts + counts] + 1 == step[starts + counts + 1]
    whole = step[starts + counts] - step[starts + 1] + 1 == counts
    length = run.steps_per_epoch
    if length is None:
        length = int(counts[begun & ended].max()) if (begun & ended).any() else None
    complete = begun & whole & (ended | (counts == length))
    rows = [
        {
            "epoch": int(epoch),
            "steps": int(count),
            "seconds": float(np.sum(run.step_s[start : start + count])),
        }
        for epoch, start, count, known in zip(epochs, starts, counts, complete, strict=True)
        if known
    ]
    seconds = [row["seconds"] for row in rows]
    return {
        "complete": rows,
        "median": float(np.median(seconds)) if seconds else None,
        "steps": int(run.step.size),
        "unsynced_steps": int(np.count_nonzero(~run.synced)),
    }


def memory(run: Run) -> Numbers | None:
    """Peak, first and last memory in MB, and the slope in MB per 1,000 steps; None if unknown."""
    known = np.isfinite(run.memory_mb)
    if not known.any():
        return None
    step, value = run.step[known], run.memory_mb[known]
    peak = int(np.argmax(value))
    return {
        "peak": float(value[peak]),
        "peak_step": int(step[peak]),
        "first": float(value[0]),
        "last": float(value[-1]),
        "steps": int(step.size),
        "slope_steps": step.size - step.size // 2,
        "slope_per_1000_steps": _slope(step[step.size // 2 :], value[step.size // 2 :]),
    }


def _slope(step: Int64, value: Float64, points: int = 600) -> float | None:
    """Theil-Sen slope per 1,000 steps over evenly spread points; None for too short a run."""
    if step.size < LEAST_FOR_SLOPE:
        return None
    from scipy.stats import theilslopes

    at = np.unique(np.linspace(0, step.size - 1, points).astype(np.int64))
    return float(theilslopes(value[at], step[at].astype(np.float64))[0]) * 1000.0
