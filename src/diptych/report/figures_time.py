"""The figures of what the steps and the epochs cost in time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diptych.figures.charts import (
    Theme,
    axes,
    bins,
    canvas,
    dots,
    medians,
    name_ends,
    plain_numbers,
)
from diptych.figures.numbers import seconds
from diptych.report.pair import Pair
from diptych.report.statistics import epoch_time, step_time

MOST_DOTS = 10_000


def step_times(pair: Pair, theme: Theme) -> Figure:
    """Seconds of every synchronised step from zero, and the medians of consecutive ones.

    The axis ends above the 99th percentiles: the one step that compiled would flatten all others.
    Steps beyond it stand as triangles at its edge, and the note says how long they took.
    """
    timed = [(run, name, colour, step_time(run)) for run, name, colour in pair.coloured(theme)]
    known = [numbers for *_, numbers in timed if numbers]
    top = 1.3 * max((max(n["p95"], min(n["p99"], 2 * n["median"])) for n in known), default=1.0)
    note = "dots: synchronised steps; lines: medians of consecutive ones"
    longest = max((n["max"] for n in known), default=0.0)
    if longest > top:
        note += f"; triangles: longer, up to {seconds(longest)}"
    figure = canvas(theme, "Time per step", note)
    ax = axes(figure, theme, "step", "seconds", right=0.78)
    ax.set_ylim(0, top)
    ends = []
    for run, name, colour, numbers in timed:
        if numbers is None:
            continue
        step, time = run.step[run.synced], run.step_s[run.synced]
        beyond = time > top
        shown = ~beyond & (np.arange(step.size) % -(-step.size // MOST_DOTS) == 0)
        ax.scatter(step[shown], time[shown], color=colour, **dots(np.count_nonzero(shown)))
        edge = np.full(np.count_nonzero(beyond), 0.975 * top)
        ax.scatter(step[beyond], edge, s=20, color=colour, marker="^", linewidths=0, zorder=6)
        x, y, _, _ = bins(step, time, min(60, max(1, step.size // 10)))
        medians(ax, theme, x, y, colour)
        ends.append((numbers["median"], f"{name}\nmedian {seconds(numbers['median'])}", colour))
    plain_numbers(ax)
    name_ends(ax, theme, ends)
    return figure


def epoch_times(pair: Pair, theme: Theme) -> Figure:
    """Seconds of every complete epoch, as bars from zero."""
    figure = canvas(theme, "Time per epoch", "complete epochs; the sum over all their steps")
    ax = axes(figure, theme, "epoch", "seconds")
    ends = []
    for i, (run, name, colour) in enumerate(pair.coloured(theme)):
        rows = epoch_time(run)["complete"]
        if rows:
            x = np.array([row["epoch"] + 1 for row in rows])
            y = [row["seconds"] for row in rows]
            ax.bar(x + (i - 0.5) * 0.36, y, width=0.34, color=colour)
            ends.append((float(y[-1]), name, colour))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(ax.get_xlim()[0] - 0.3, ax.get_xlim()[1] + 0.3)
    plain_numbers(ax)
    name_ends(ax, theme, ends)
    return figure
