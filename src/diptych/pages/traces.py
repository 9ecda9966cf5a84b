"""Traces of long records: medians with a band, and no line across gaps in the record.

thinned   more than MOST points are drawn as medians of consecutive ones, with the range of
          the raw values as a band behind them, so that no peak is lost
broken    if the spacing of two points is more than GAP times the median around them, the line
          ends and begins anew: a pause, or missing rows
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from diptych.figures.charts import bins
from diptych.pages.catalogue import Text, phrase
from diptych.pages.document import Trace
from diptych.pages.template import words
from diptych.types import Float64, Int64

MOST = 1200
GAP = 4
NEAR = 5  # spacings on either side of one that enter the median around it
LEAST_SHOWN = 0.05  # an axis spans at least this share of its largest value
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "triangle-down", "star")


def listed(values: Float64 | Int64) -> list[float | None]:
    """Numbers for JSON with six digits; None for values that are not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def segments(x: Float64 | Int64) -> list[slice]:
    """Slices of ascending values without a gap."""
    if x.size < 3:
        return [slice(0, x.size)]
    spacing = np.diff(x.astype(np.float64))
    around = sliding_window_view(np.pad(spacing, NEAR, mode="symmetric"), 2 * NEAR + 1)
    cuts = np.flatnonzero(spacing > GAP * np.median(around, axis=-1)) + 1
    return [slice(a, b) for a, b in pairwise([0, *cuts.tolist(), x.size])]


def line(
    label: Text,
    colour: str,
    x: Int64 | Float64,
    y: Float64,
    *,
    most: int = MOST,
    dash: str = "solid",
    under: bool = False,
) -> Trace:
    """A line over ascending x, broken at gaps, thinned to medians and a band if it is long.

    Args:
        x, y: (n,); no point is drawn for a y that is not finite.
        most: the largest number of points that are drawn one by one.
    """
    width = 1 if x.size <= most else -(-x.size // (most // 2))
    at: list[float | None] = []
    columns: tuple[list[float | None], ...] = ([], [], [])
    for n, part in enumerate(segments(x)):
        if n:  # a place without a value breaks the line
            at.append(float(f"{(x[part.start - 1] + x[part.start]) / 2:.10g}"))
            for column in columns:
                column.append(None)
        if width == 1:
            at += x[part].tolist()
            columns[0].extend(listed(y[part]))
            continue
        middle, *found = bins(x[part], y[part], -(-(part.stop - part.start) // width))
        at += [round(float(m), 1 if x.dtype.kind == "i" else 4) for m in middle]
        for column, values in zip(columns, found, strict=True):
            column.extend(listed(values))
    value, low, high = columns
    trace = Trace("line", label, colour, at, value, dash=dash, under=under)
    return replace(trace, low=low, high=high) if width > 1 else trace


def thinned(sizes: Sequence[int]) -> Text:
    """A note on thinning for the reader of lines with so many points."""
    size = max(sizes, default=0)
    if size <= MOST:
        return phrase("note.every_step")
    return words("note.thinned", n=-(-size // (MOST // 2)))


def wide(values: Sequence[Float64]) -> bool:
    """True if a log scale shows the values better: all positive, over more than a factor of 8."""
    known = np.concatenate([v[np.isfinite(v)] for v in values])
    return bool(known.size and known.min() > 0 and known.max() > 8 * known.min())


def unmagnified(traces: Sequence[Trace]) -> tuple[float, float] | None:
    """The range of y that keeps tiny differences tiny; None if the values spread enough.

    Values of 19.31276 and 19.31283 look far apart if they fill the whole axis.
    """
    shown = [v for t in traces for column in (t.y, t.low or (), t.high or ()) for v in column]
    known = [v for v in shown if v is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    least = LEAST_SHOWN * max(abs(low), abs(high))
    if high - low >= least:
        return None
    middle = (low + high) / 2
    return middle - least / 2, middle + least / 2
