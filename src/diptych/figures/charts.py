"""The look of every figure: one colour per backend, the same everywhere.

Vermilion is PyTorch and blue is Jittor (both from Okabe and Ito's set, distinguishable with any
colour vision); anything else is grey. Run A is a wide pale line with run B as a thin dark line on
top, so both are visible where they coincide. Names are at the ends of the lines, not in a legend.
Drawn with Agg at a width of 1,344 pixels, legible at the 830 of a README.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, FuncFormatter, MaxNLocator

from diptych.figures.numbers import significant
from diptych.types import Float64, Int64

SIZE = (6.4, 3.6)
DPI = 210
LETTER = 0.088  # average width of a letter in a name, in inches


@dataclass(frozen=True)
class Theme:
    """The colours of a page, light or dark."""

    paper: str
    ink: str
    soft: str
    grid: str
    torch: str
    jittor: str

    def wash(self, colour: str, strength: float = 0.45) -> str:
        """A colour mixed with the paper, for wide lines and raw values."""
        mixed = strength * np.array(to_rgb(colour)) + (1 - strength) * np.array(to_rgb(self.paper))
        return to_hex(tuple(mixed))

    def pair(self, backend_a: str, backend_b: str) -> tuple[str, str]:
        """Colours of run A and run B: those of their backends, or one of each if both runs used
        the same backend."""
        flipped = backend_a != backend_b and (backend_a == "jittor" or backend_b == "torch")
        return (self.jittor, self.torch) if flipped else (self.torch, self.jittor)


LIGHT = Theme("#ffffff", "#1f2328", "#636c76", "#e4e7eb", "#c9501c", "#0b62a8")
DARK = Theme("#14171c", "#e6e9ed", "#99a2ad", "#2b3038", "#f08a5d", "#62b0f2")


def canvas(theme: Theme, title: str, note: str = "", size: tuple[float, float] = SIZE) -> Figure:
    """An empty figure with a title at the left and a softer note below it."""
    figure = Figure(figsize=size, dpi=DPI, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    height = size[1]
    figure.text(0.02, 1 - 0.14 / height, title, color=theme.ink, size=11.5, weight="bold", va="top")
    figure.text(0.02, 1 - 0.37 / height, note, color=theme.soft, size=8.8, va="top")
    return figure


def axes(figure: Figure, theme: Theme, x: str, y: str, right: float = 0.83) -> Axes:
    """The only axes of a figure, with room for names at the right."""
    height = float(figure.get_size_inches()[1])
    bottom, top = 0.52 / height, 1 - 0.72 / height
    ax = figure.add_axes((0.115, bottom, right - 0.115, top - bottom), facecolor=theme.paper)
    ax.set_xlabel(x, color=theme.soft, size=9)
    ax.set_ylabel(y, color=theme.soft, size=9)
    ax.tick_params(colors=theme.soft, labelsize=8.5, length=0, which="both")
    ax.grid(axis="y", color=theme.grid, linewidth=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    ax.spines["bottom"].set_color(theme.grid)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(_thousands))
    ax.margins(x=0.01)
    return ax


def _thousands(value: float, _: object) -> str:
    return f"{value:,.0f}" if value == round(value) else ""


def plain_numbers(ax: Axes) -> None:
    """Label the y axis with plain numbers: 0.05, 1, 1,200; on a log axis also at 2 and 5."""
    if ax.get_yscale() == "log":
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _trim(value)))
        ax.yaxis.set_minor_formatter(
            FuncFormatter(lambda value, _: _trim(value) if f"{value:.0e}"[0] in "25" else "")
        )
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        ax.yaxis.set_major_formatter(_EqualDecimals())


class _EqualDecimals(Formatter):
    """Tick labels with equal decimals, as many as the tick spacing needs: 0.030, 0.035, 0.040."""

    def __call__(self, value: float, pos: int | None = None) -> str:
        gaps = np.diff(self.locs)
        least = float(np.min(gaps)) if len(gaps) else 1.0
        decimals = max(0, -int(np.floor(np.log10(least) + 1e-9)))
        return f"{value:,.{decimals}f}"


def medians(ax: Axes, theme: Theme, x: Float64, y: Float64, colour: str) -> None:
    """Draw a line of medians over many dots, edged with paper so that it stands out."""
    ax.plot(x, y, color=theme.paper, linewidth=4.0, alpha=0.8, zorder=4)
    ax.plot(x, y, color=colour, linewidth=1.8, marker="o" if x.size == 1 else "", zorder=5)


def line(theme: Theme, colour: str, under: bool) -> dict[str, Any]:
    """Plot arguments for run A's line (`under`) and for run B's on top of it."""
    if under:
        return {
            "color": theme.wash(colour, 0.5),
            "linewidth": 4.6,
            "markersize": 9.5,
            "solid_capstyle": "round",
        }
    return {"color": colour, "linewidth": 1.3, "markersize": 3.8}


def _trim(value: float) -> str:
    text = significant(value, 3)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def name_ends(ax: Axes, theme: Theme, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names beside the axes at the ends of their lines, moved apart if they would touch.

    Args:
        ends: for each line: the y of its end in data units, its name, its colour.
    """
    if not ends:
        return
    ax.figure.canvas.draw()  # settles the axis limits, on which the heights depend
    to_axes = ax.transData + ax.transAxes.inverted()
    heights = [float(np.clip(to_axes.transform((0, y))[1], 0.02, 0.98)) for y, _, _ in ends]
    order = np.argsort(heights, kind="stable")
    room = SIZE[0] * (1 - ax.get_position().x1)
    names = [wrapped(name, int((room - 0.07) / LETTER)) for _, name, _ in ends]
    lines = [1 + name.count("\n") for name in names]
    for low, high in pairwise(order):
        least = heights[low] + 0.04 * (lines[low] + lines[high])
        heights[high] = max(heights[high], least)
    over = max(0.0, max(heights) - 0.98)
    for (_, _, colour), name, height in zip(ends, names, heights, strict=True):
        ax.text(
            1.015,
            height - over,
            name,
            transform=ax.transAxes,
            color=colour,
            size=9.2,
            weight="bold",
            va="center",
            linespacing=1.25,
            parse_math=False,
        )


def wrapped(name: str, width: int) -> str:
    """Wrap a name into lines of at most `width` letters; its own line breaks stay."""
    return "\n".join(textwrap.fill(part, width) for part in name.split("\n"))


def bins(
    step: Int64 | Float64, value: Float64, count: int
) -> tuple[Float64, Float64, Float64, Float64]:
    """Median, minimum and maximum of `value` in at most `count` bins of consecutive steps.

    Returns:
        Middle step, median, minimum and maximum of each bin; all float64, (bins,). NaNs are left
        out; a bin that holds only NaNs is NaN.
    """
    width = -(-step.size // count)
    middle, found = [], []
    edges = list(range(0, step.size, width))
    if len(edges) > 1 and 2 * (step.size - edges[-1]) < width:
        edges.pop()  # the last few steps go into the bin before
    for start, end in pairwise([*edges, step.size]):
        middle.append(float(np.mean(step[start:end])))
        part = value[start:end]
        part = part[np.isfinite(part)]
        found.append((np.median(part), part.min(), part.max()) if part.size else (np.nan,) * 3)
    median, least, most = np.array(found, dtype=np.float64).T
    return np.array(middle), median, least, most


def png(figure: Figure) -> bytes:
    """The figure as PNG; the same bytes for the same numbers."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None}
    )
    return buffer.getvalue()


def settings() -> Any:
    """A context in which figures ignore the user's matplotlib settings."""
    return matplotlib.rc_context(matplotlib.rcParamsDefault | {"font.family": "DejaVu Sans"})
