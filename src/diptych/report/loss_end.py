"""How low the losses of two runs end: over the same steps of both.

    compared    the last tenth of the range of steps that both recorded, one step at least

A run that went on for longer is not set against one that did not: its later losses are lower
because it trained for longer.
"""

from __future__ import annotations

import numpy as np

from diptych.report.statistics import Numbers
from diptych.runs.reader import Run
from diptych.stats import ratio


def loss_end(a: Run, b: Run, with_ratio: bool) -> Numbers | None:
    """The mean losses of the last steps that both reached; None where one has none there.

    Args:
        with_ratio: also B's mean over A's with its interval, for runs that are not compared
            step by step.
    """
    low, high = max(a.step[0], b.step[0]), min(a.step[-1], b.step[-1])
    first = high - max(1, (high - low + 1) // 10) + 1
    tails = []
    for run in (a, b):
        values = run.loss[(run.step >= first) & (run.step <= high)]
        tails.append(values[np.isfinite(values)])
    if low > high or not all(tail.size for tail in tails):
        return None
    return {
        "first_step": int(first),
        "last_step": int(high),
        "whole": bool(a.step[0] == b.step[0] and a.step[-1] == b.step[-1]),
        "a": {"steps": int(tails[0].size), "mean": float(np.mean(tails[0]))},
        "b": {"steps": int(tails[1].size), "mean": float(np.mean(tails[1]))},
        "ratio": ratio(tails[0], tails[1], lambda x: np.mean(x, axis=-1)) if with_ratio else None,
    }
