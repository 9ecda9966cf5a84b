"""The time that two runs trained at once, from the starts of their processes and ends of steps.

A process works from the time in environment.json's `starts` until its last recorded step ended.
Older records lack that end; the start plus the sum of the steps' times, which is no later, is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diptych.runs.reader import Run
from diptych.runs.records import number, whole

Span = tuple[float, float]


def spans(run: Run) -> list[Span] | None:
    """(began, ended) of each of the run's processes in seconds since 1970; None if not recorded."""
    starts = run.environment.get("starts")
    timed = [
        (start["step"], float(start["time"]))
        for start in (starts if isinstance(starts, list) else [])
        if isinstance(start, dict)
        and whole(start.get("step")) is not None
        and number(start.get("time")) is not None
    ]
    found = []
    for i, (after, began) in enumerate(timed):
        upto = timed[i + 1][0] if i + 1 < len(timed) else math.inf
        own = (run.step > after) & (run.step <= upto)
        if own.any():
            ended = float(run.ended[own][-1])
            lasted = float(np.sum(run.step_s[own]))
            found.append((began, max(began, ended if math.isfinite(ended) else began + lasted)))
    return found or None


def together(a: Run, b: Run) -> dict[str, Any] | None:
    """Seconds for which both trained, and their share of the shorter training; None if unknown."""
    in_a, in_b = spans(a), spans(b)
    if in_a is None or in_b is None:
        return None
    both = sum(max(0.0, min(x[1], y[1]) - max(x[0], y[0])) for x in in_a for y in in_b)
    shorter = min(sum(end - begin for begin, end in each) for each in (in_a, in_b))
    return {"seconds": both, "share": both / shorter if shorter > 0 else 0.0}
