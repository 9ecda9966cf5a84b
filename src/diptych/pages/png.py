"""The figures of a page as PNG, in the style of all other figures, with English labels.

They are for Markdown, print and pages without scripts; the page draws the same traces.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)
from PIL import Image

from diptych.figures import charts
from diptych.figures.charts import DARK, LIGHT, Theme
from diptych.pages.document import Block, Gallery, Plot, Trace
from diptych.pages.traces import MARKERS

# Colours of the parts of a step, (light, dark); the page uses the same.
PARTS = (("#7a828c", "#99a2ad"), ("#8445a3", "#c99ae3"), ("#00735a", "#45c19d"),
         ("#9a7b00", "#d6ba55"), ("#a92c64", "#f394bb"), ("#3d4650", "#d0d6dc"))  # fmt: skip
# The page's marker names -> Matplotlib's.
SYMBOLS = dict(zip(MARKERS, "osD^XPv*", strict=True))
MOST_NAMED = 8  # lines that are named at their ends; more get a legend with their markers
Colours = dict[str, str]


def palette(runs: Sequence[tuple[str, str]], theme: Theme) -> Colours:
    """The colours of a theme by name: run0 ..., part0 ..., ink, soft."""
    which = 0 if theme is LIGHT else 1
    found = {f"run{i}": pair[which] for i, pair in enumerate(runs)}
    found |= {f"part{i}": pair[which] for i, pair in enumerate(PARTS)}
    return found | {"ink": theme.ink, "soft": theme.soft}


def drawn(block: Block, runs: Sequence[tuple[str, str]], dark: bool = False) -> Block:
    """A figure with its PNG, and a dark one if asked; any other block is returned as it is."""
    if not isinstance(block, Plot):
        return block
    night = png_of(block, runs, DARK) if dark else b""
    return replace(block, png=png_of(block, runs), dark=night)


def png_of(plot: Plot, runs: Sequence[tuple[str, str]], theme: Theme = LIGHT) -> bytes:
    """A figure as PNG bytes."""
    colours = palette(runs, theme)
    with charts.settings():
        note = plot.note.en.partition(": double-click")[0]
        page = charts.canvas(theme, plot.title.en, charts.wrapped(note, 96))
        ax = charts.axes(page, theme, plot.x.en, plot.y.en, right=0.78)
        if plot.log_x:
            ax.set_xscale("log")
        if plot.log_y:
            ax.set_yscale("log")
        ends = _draw(ax, theme, plot, colours)
        if plot.x_range:
            ax.set_xlim(*plot.x_range)
        if plot.y_range:
            ax.set_ylim(*plot.y_range)
        elif plot.from_zero:
            ax.set_ylim(0, ax.get_ylim()[1] * 1.05)
        charts.plain_numbers(ax)
        _log_numbers(ax, plot)
        if len(ends) > MOST_NAMED:
            look: dict[str, Any] = {"fontsize": 6.5, "frameon": False, "labelcolor": "linecolor"}
            ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), handlelength=3.2, **look)
        else:
            charts.name_ends(ax, theme, ends)
        return charts.png(page)


def side_by_side(gallery: Gallery, runs: Sequence[tuple[str, str]]) -> bytes:
    """Up to three pictures of a gallery as one light PNG."""
    colours = palette(runs, LIGHT)
    with charts.settings():
        page = charts.canvas(LIGHT, gallery.caption.en, size=(6.4, 2.72))
        for i, picture in enumerate(gallery.pictures[:3]):
            ax = page.add_axes((0.02 + i * 0.327, 0.03, 0.307, 0.73))
            with Image.open(io.BytesIO(picture.data)) as image:
                ax.imshow(image.convert("RGB"), interpolation="nearest")
            ax.set_axis_off()
            look: dict[str, Any] = {"size": 9.2, "weight": "bold", "color": colours[picture.colour]}
            title = charts.wrapped(picture.title.en, 24)
            ax.set_title(title, loc="left", pad=4, **look).set_parse_math(False)
        return charts.png(page)


def _draw(ax: Axes, theme: Theme, plot: Plot, colours: Colours) -> list[tuple[float, str, str]]:
    if any(trace.kind == "bars" for trace in plot.traces):
        return _bars(ax, plot, colours)
    categories = [x for trace in plot.traces for x in trace.x if isinstance(x, str)]
    places = {name: i for i, name in enumerate(dict.fromkeys(categories))}
    ends = []
    for k, trace in enumerate(plot.traces):
        colour = colours[trace.colour]
        x = np.array([places.get(v, v) for v in trace.x], dtype=np.float64)
        y = _floats(trace.y)
        if x.size == 0 or not np.isfinite(y).any():
            continue
        _line(ax, trace, x, y, colour, 3 + k)
        ends.append((float(y[np.isfinite(y)][-1]), trace.label.en, colour))
    if places:
        ax.set_xticks(list(places.values()), [charts.wrapped(n, 18) for n in places])
        ax.set_xlim(-0.6, len(places) - 0.4)
    return ends


def _line(ax: Axes, trace: Trace, x: Any, y: Any, colour: str, order: int) -> None:
    if trace.low is not None and trace.high is not None:
        low, high = _floats(trace.low), _floats(trace.high)
        if trace.kind == "points":
            ax.vlines(x, low, high, color=colour, linewidth=1.2, zorder=order)
        else:
            ax.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    style = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}[trace.dash]
    shown = trace.kind == "points" or (x.size <= 60 and x.size != 2)
    marker = SYMBOLS[trace.marker] if shown else ""
    size = 3.8 if trace.marker == "circle" else 5.0
    width, alpha = (4.5, 0.4) if trace.under else (1.5, 1.0)
    look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": width, "alpha": alpha}
    ax.plot(x, y, marker=marker, markersize=size, zorder=order, label=trace.label.en, **look)


def _bars(ax: Axes, plot: Plot, colours: Colours) -> list[tuple[float, str, str]]:
    names = list(dict.fromkeys(x for trace in plot.traces for x in trace.x))
    texts = any(isinstance(name, str) for name in names)
    places = {name: i if texts else name for i, name in enumerate(names)}
    bottom = np.zeros(len(names))
    width = 0.5 if plot.stacked else 0.8 / len(plot.traces)
    ends = []
    for k, trace in enumerate(plot.traces):
        at = np.array([places[x] for x in trace.x], dtype=np.float64)
        y = np.nan_to_num(_floats(trace.y))
        colour = colours[trace.colour]
        if plot.stacked:
            index = [names.index(x) for x in trace.x]
            ax.bar(at, y, width=width, bottom=bottom[index], color=colour)
            bottom[index] += y
            ends.append((float(bottom[index][-1] - y[-1] / 2), trace.label.en, colour))
        else:
            shift = (k - (len(plot.traces) - 1) / 2) * width
            ax.bar(at + shift, y, width=0.94 * width, color=colour)
            ends.append((float(y[-1]), trace.label.en, colour))
    if texts:
        ax.set_xticks(list(places.values()), [charts.wrapped(n, 18) for n in names])
        ax.set_xlim(-0.7, len(names) - 0.3)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ends


def _log_numbers(ax: Axes, plot: Plot) -> None:
    """Label a log axis: x with its values if they are few, else with 1, 2 and 5; y plainly."""
    show = FuncFormatter(lambda value, _: f"{value:,.6g}".replace("e-0", "e-"))
    if plot.log_x:
        values = sorted({x for trace in plot.traces for x in trace.x if not isinstance(x, str)})
        few = len(values) <= 8
        if few:  # interval bars would stretch the axis by a decade
            room = (values[-1] / values[0]) ** 0.06 if values[-1] > values[0] else 1.5
            ax.set_xlim(values[0] / room, values[-1] * room)
        ax.xaxis.set_major_locator(FixedLocator(values) if few else LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(show)
    low, high = ax.get_ylim()
    if plot.log_y and high > 1000 * low:
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(show)


def _floats(values: Sequence[float | None]) -> Any:
    return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
