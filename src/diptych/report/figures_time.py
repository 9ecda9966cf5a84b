"""The figures of what the steps and the epochs cost in time."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diptych.report.drawing import Pair, Theme, axes, bins, canvas, name_ends, plain_numbers
from diptych.report.statistics import OUTLIER, epoch_time, step_time
from diptych.report.wording import seconds

MOST_DOTS = 10_000


def step_times(pair: Pair, theme: Theme) -> Figure:
    """Seconds of every synchronised step, and the medians of consecutive ones."""
    note = "dots: synchronised steps; lines: median of consecutive ones"
    figure = canvas(theme, "Time per step", note)
    ax = axes(figure, theme, "step", "seconds", right=0.82)
    ends, outlying = [], False
    for run, name, colour in pair.coloured(theme):
        numbers = step_time(run)
        if numbers is None:
            continue
        step, time = run.step[run.synced], run.step_s[run.synced]
        slow = time > OUTLIER * numbers["median"]
        outlying = outlying or bool(slow.any())
        shown = slow | (np.arange(step.size) % -(-step.size // MOST_DOTS) == 0)
        size = float(np.clip(3000 / step.size, 1.5, 12.0))
        ax.scatter(step[shown], time[shown], s=size, color=colour, alpha=0.3, linewidths=0)
        ax.scatter(step[slow], time[slow], s=14, color=colour, linewidths=0)
        x, y, _, _ = bins(step, time, 60 if step.size > 120 else max(1, step.size // 5))
        ax.plot(x, y, color=colour, linewidth=2)
        ends.append((float(y[-1]), f"{name}\nmedian {seconds(numbers['median'])}", colour))
    if outlying:
        ax.set_yscale("log")
    else:
        ax.set_ylim(0, ax.get_ylim()[1] * 1.05)
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
