"""Numbers about time and memory, each a plain function of the records.

    step time      data_s + compute_s of the synchronised steps only
    memory slope   Theil-Sen: the median of the slopes between all pairs of readings in the run's
                   second half; the first half fills caches, which is not a leak

Slow steps and their causes: `diptych.profiling.outliers`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.runs.reader import Series
from diptych.stats import ratio
from diptych.types import Float64, Int64

LEAST_FOR_SLOPE = 20

Numbers = dict[str, Any]


def step_time(run: Series) -> Numbers | None:
    """Seconds per step over the synchronised steps; None if there are none."""
    time, step = run.step_s[run.synced], run.step[run.synced]
    if time.size == 0:
        return None
    total = float(np.sum(time))
    return {
        "synced_steps": int(time.size),
        "median": float(np.median(time)),
        "p95": float(np.percentile(time, 95)),
        "p99": float(np.percentile(time, 99)),
        "max": float(np.max(time)),
        "max_step": int(step[int(np.argmax(time))]),
        "mean": total / time.size,
        "total": total,
        "starts": run.starts,
        "data_share": float(np.sum(run.data_s[run.synced])) / total if total > 0 else 0.0,
    }


def step_time_ratio(a: Series, b: Series) -> Numbers | None:
    """B's median step time over A's, with its interval; None if either has no timed step."""
    return ratio(a.step_s[a.synced], b.step_s[b.synced], lambda x: np.median(x, axis=-1))


def epoch_time(run: Series) -> Numbers:
    """Seconds of each complete epoch: the sum over all its steps, synchronised or not.

    An epoch is complete if it holds its first step and no gaps, and either the next epoch has begun
    or it has as many steps as the data has batches (if that is not recorded, as the longest
    complete epoch).
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
    spent = [float(np.sum(run.step_s[s : s + n])) for s, n in zip(starts, counts, strict=True)]
    rows = [
        {"epoch": int(epoch), "steps": int(count), "seconds": took}
        for epoch, count, took, known in zip(epochs, counts, spent, complete, strict=True)
        if known
    ]
    seconds = [row["seconds"] for row in rows]
    return {
        "complete": rows,
        "median": float(np.median(seconds)) if seconds else None,
        "steps": int(run.step.size),
        "unsynced_steps": int(np.count_nonzero(~run.synced)),
    }


def epoch_ratio(a: Numbers, b: Numbers) -> Numbers | None:
    """B's median time of a complete epoch over A's; None if either has none."""
    one, other = (np.array([row["seconds"] for row in each["complete"]]) for each in (a, b))
    return ratio(one, other, lambda x: np.median(x, axis=-1))


def memory(run: Series) -> Numbers | None:
    """Peak, first and last memory in MiB, and the slope in MiB per 1,000 steps; None if unknown."""
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
        "slope_steps": int(step[-1] - step[step.size // 2]) + 1,
        "slope_per_1000_steps": _slope(step[step.size // 2 :], value[step.size // 2 :]),
    }


def _slope(step: Int64, value: Float64, points: int = 600) -> float | None:
    """Theil-Sen slope per 1,000 steps over evenly spread points; None if the run is too short."""
    if step.size < LEAST_FOR_SLOPE:
        return None
    from scipy.stats import theilslopes

    at = np.unique(np.linspace(0, step.size - 1, points).astype(np.int64))
    return float(theilslopes(value[at], step[at].astype(np.float64))[0]) * 1000.0
