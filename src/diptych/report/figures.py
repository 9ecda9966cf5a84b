"""The figures of a comparison, one function each, from the records alone.

A run of more than DETAIL steps is drawn as the median of consecutive steps, with the range of the
raw values faint behind it: a line through 10,000 raw losses is a bar, in which nothing is seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diptych.figures.charts import (
    Theme,
    axes,
    bins,
    canvas,
    dots,
    line,
    medians,
    name_ends,
    plain_numbers,
    wrapped,
)
from diptych.figures.numbers import significant
from diptych.report.pair import Pair
from diptych.report.samples import Samples, difference_picture, grid
from diptych.report.statistics import (
    STRIDE,
    common_steps,
    relative_difference,
)
from diptych.runs.reader import Run
from diptych.types import Float64, Int64

DETAIL = 400
MEDIANS = 120
RANGES = 500
# Half a unit in the last place of a float32: a smaller difference of two losses is none.
ROUNDING = 2.0**-24
NO_STEPS = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def loss(pair: Pair, theme: Theme) -> Figure:
    """The losses of both runs, every step."""
    figure = canvas(theme, "Loss of every step", _binned(pair, MEDIANS))
    ax = axes(figure, theme, "step", "loss")
    _lines(ax, theme, pair, lambda run: run.loss)
    return figure


def memory(pair: Pair, theme: Theme) -> Figure:
    """The memory of both runs over their steps, from zero."""
    figure = canvas(theme, "Memory", _binned(pair, MEDIANS))
    ax = axes(figure, theme, "step", "MB")
    _lines(ax, theme, pair, lambda run: run.memory_mb, from_zero=True)
    return figure


def _binned(pair: Pair, count: int) -> str:
    size = max(pair.a.step.size, pair.b.step.size)
    if size <= DETAIL:
        return ""
    return f"line: median of {-(-size // count):,} steps at a time; band: least to most"


def _lines(
    ax: Axes, theme: Theme, pair: Pair, pick: Callable[[Run], Float64], from_zero: bool = False
) -> None:
    """Run A wide and pale, run B thin and dark upon it."""
    long = max(pair.a.step.size, pair.b.step.size) > DETAIL
    ends = []
    for i, (run, name, colour) in enumerate(pair.coloured(theme)):
        x, y = run.step.astype(np.float64), pick(run)
        if not np.isfinite(y).any():
            continue
        if long:
            middle, _, least, most = bins(run.step, y, RANGES)
            ax.fill_between(middle, least, most, color=colour, alpha=0.16, linewidth=0)
            x, y, _, _ = bins(run.step, y, MEDIANS)
        marker = "o" if run.step.size == 1 else ""
        ax.plot(x, y, zorder=3 + i, marker=marker, **line(theme, colour, under=i == 0))
        ends.append((float(y[np.isfinite(y)][-1]), name, colour))
    if from_zero:
        ax.set_ylim(0, ax.get_ylim()[1] * 1.05)
        plain_numbers(ax)
    else:
        _log_where_wide(ax, [pick(run) for run in (pair.a, pair.b)])
    name_ends(ax, theme, ends)


def _log_where_wide(ax: Axes, values: list[Float64]) -> None:
    known = np.concatenate(values)
    known = known[np.isfinite(known)]
    if known.size and known.min() > 0 and known.max() > 8 * known.min():
        ax.set_yscale("log")
    plain_numbers(ax)


def every_200(pair: Pair, theme: Theme) -> Figure:
    """The losses of both runs at every 200th common step."""
    figure = canvas(theme, f"Loss of every {STRIDE}th step", "single steps, not averaged")
    ax = axes(figure, theme, "step", "loss")
    ends, shown = [], []
    parts = common_steps(pair.a, pair.b) or NO_STEPS
    for i, ((run, name, colour), part) in enumerate(zip(pair.coloured(theme), parts, strict=True)):
        at = run.step[part] % STRIDE == 0
        x, y = run.step[part][at], run.loss[part][at]
        marker = "o" if x.size <= 60 else ""
        ax.plot(
            x, y, zorder=3 + i, marker=marker, clip_on=False, **line(theme, colour, under=i == 0)
        )
        shown.append(y)
        if np.isfinite(y).any():
            ends.append((float(y[np.isfinite(y)][-1]), name, colour))
    _log_where_wide(ax, shown)
    name_ends(ax, theme, ends)
    return figure


def difference(pair: Pair, theme: Theme) -> Figure:
    """|a - b| / max(|a|, |b|) of the losses at every common step, log scale."""
    in_a, in_b = common_steps(pair.a, pair.b) or NO_STEPS
    step = pair.a.step[in_a]
    relative = relative_difference(pair.a.loss[in_a], pair.b.loss[in_b])
    equal, apart = relative == 0, relative > 0
    note = f"{np.count_nonzero(equal):,} of {step.size:,} are equal to the last bit"
    note += " (ticks at the foot)" if equal.any() else ""
    figure = canvas(theme, "Relative difference of the losses, step by step", note)
    ax = axes(figure, theme, "step", "relative difference")
    ax.set_yscale("log")
    low = min(ROUNDING, float(relative[apart].min())) if apart.any() else ROUNDING
    high = max(1e-6, float(relative[apart].max())) if apart.any() else 1e-6
    ax.set_ylim(low / 4, high * 4)
    ax.set_xlim(step[0] - 0.01 * step.size - 1, step[-1] + 0.01 * step.size + 1)
    ax.axhline(ROUNDING, color=theme.soft, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.scatter(step[apart], relative[apart], color=theme.ink, **dots(step.size))
    foot = ax.get_xaxis_transform()
    ax.vlines(step[equal], 0, 0.025, transform=foot, color=theme.ink, alpha=0.35, linewidth=0.5)
    ends = [(ROUNDING, "one float32\nrounding", theme.soft)]
    if apart.any():
        ends += _difference_marks(ax, theme, step, relative)
    name_ends(ax, theme, ends)
    return figure


def _difference_marks(
    ax: Axes, theme: Theme, step: Int64, relative: Float64
) -> list[tuple[float, str, str]]:
    worst = int(np.nanargmax(relative))
    text = f"{significant(relative[worst])} at step {step[worst]:,}"
    late = worst > step.size / 2
    ax.plot(step[worst], relative[worst], "o", color=theme.ink, markersize=4)
    ax.annotate(text, (float(step[worst]), float(relative[worst])), color=theme.ink, size=8.8,
                xytext=(-7 if late else 7, 2), textcoords="offset points",
                ha="right" if late else "left", va="center")  # fmt: skip
    count = min(60, step.size // 10)
    if count < 2:
        return []
    x, y, _, _ = bins(step, relative, count)
    y = np.where(y > 0, y, np.nan)
    if not np.isfinite(y).any():
        return []
    medians(ax, theme, x, y, theme.ink)
    return [
        (float(y[np.isfinite(y)][-1]), f"median of\n{-(-step.size // count):,} steps", theme.ink)
    ]


def grids(pair: Pair, theme: Theme, a: Samples, b: Samples, alike: bool) -> Figure:
    """The first 64 images of both and, where they were sampled alike, their absolute difference."""
    figure = canvas(theme, "Samples", size=(6.4, 2.72))
    pictures = [grid(a.images), grid(b.images)]
    titles = list(pair.names)
    colours = [colour for _, _, colour in pair.coloured(theme)]
    if alike:
        count = min(len(a.images), len(b.images))
        gap = difference_picture(a.images[:count], b.images[:count])
        picture = grid(gap).astype(np.float64)
        most = picture.max()
        pictures.append((picture / max(1.0, most) * 255).astype(np.uint8))
        titles.append(
            f"absolute difference\n(white: {most:.0f} of 255)" if most else "no difference"
        )
        colours.append(theme.soft)
    for i, (shown, title, colour) in enumerate(zip(pictures, titles, colours, strict=True)):
        ax = figure.add_axes((0.02 + i * 0.327, 0.03, 0.307, 0.73))
        ax.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        ax.set_axis_off()
        heading = wrapped(title, 24)
        ax.set_title(
            heading, color=colour, size=9.2, weight="bold", loc="left", pad=4
        ).set_parse_math(False)
    return figure
