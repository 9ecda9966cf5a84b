"""The figures of a climb: errors layer by layer, loss curves in lockstep, the worst tensor.

Drawn in the look of `diptych.figures.charts`; every number is one that decided a verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from diptych.align.ladder.judge import Finding, Verdict
from diptych.figures.charts import Theme, axes, canvas, line, name_ends, plain_numbers
from diptych.figures.numbers import significant

NAMES = {"torch": "PyTorch", "jittor": "Jittor"}
LEAST = 1e-9  # what a logarithmic axis shows of an error of zero


def colour(theme: Theme, panel: str) -> str:
    """A panel's own colour; a port's is the soft ink."""
    return str(getattr(theme, panel, theme.soft))


def layer_errors(verdict: Verdict, mode: str, theme: Theme) -> Figure:
    """Each layer's error and gate in one mode, in the order of computation."""
    rows = [f for f in verdict.findings if f.name.startswith(f"{mode}/") and not f.text]
    title = {"free": "Layers, running freely", "fed": "Layers, fed with the reference's inputs"}
    figure = canvas(theme, title[mode], "largest error over largest value; grey: what is allowed")
    ax = axes(figure, theme, "layer, in the order of computation", "error")
    ax.set_yscale("log")
    ends = []
    for panel in dict.fromkeys(f.panel for f in rows):
        own = [f for f in rows if f.panel == panel]
        x = np.arange(1, len(own) + 1)
        errors = np.array([max(f.error, LEAST) if np.isfinite(f.error) else 1.0 for f in own])
        ax.plot(x, [max(f.gate, LEAST) for f in own], color=theme.grid, linewidth=1.6, zorder=1)
        ax.plot(x, errors, marker="o", **line(theme, colour(theme, panel), False))
        bad = np.array([f.failed for f in own])
        if bad.any():
            first = int(np.argmax(bad))
            ax.annotate(own[first].name.partition("/")[2], (x[first], errors[first]), size=8.5,
                        color=theme.ink, xytext=(4, 6), textcoords="offset points")  # fmt: skip
        ends.append((float(errors[-1]), NAMES.get(panel, panel), colour(theme, panel)))
    name_ends(ax, theme, ends)
    return figure


def losses(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """The panels' losses in lockstep, the reference's under them."""
    figure = canvas(theme, "Loss in lockstep", "wide and pale: the float64 reference")
    ax = axes(figure, theme, "step", "loss")
    x = np.arange(1, len(curves["truth"]) + 1)
    ax.plot(x, curves["truth"], **line(theme, theme.soft, True))
    ends = []
    for panel, rows in curves.items():
        if panel != "truth":
            ax.plot(x, rows[0], **line(theme, colour(theme, panel), False))
            ends.append((rows[0][-1], NAMES.get(panel, panel), colour(theme, panel)))
    plain_numbers(ax)
    name_ends(ax, theme, ends)
    return figure


def envelope(curves: Mapping[str, Any], theme: Theme) -> Figure:
    """The panels' relative difference, over what each differs by from itself after one rounding."""
    note = "band: a panel's own change after one rounding of its first input"
    figure = canvas(theme, "Difference of the losses in lockstep", note)
    ax = axes(figure, theme, "step", "relative difference")
    ax.set_yscale("log")
    truth = np.array(curves["truth"])
    panels = [p for p in curves if p != "truth"]
    x = np.arange(1, len(truth) + 1)
    moved = [LEAST * np.ones_like(truth)]
    for panel in panels:
        clean = np.array(curves[panel][0])
        moved += [np.abs(np.array(row) - clean) / truth for row in curves[panel][1:]]
    band = np.maximum.accumulate(np.max(moved, axis=0))
    ax.fill_between(x, LEAST, np.maximum(band, LEAST), color=theme.grid, linewidth=0, zorder=1)
    ends = []
    for panel in panels:
        apart = np.maximum(np.abs(np.array(curves[panel][0]) - truth) / truth, LEAST)
        ax.plot(x, apart, marker="o", **line(theme, colour(theme, panel), False))
        ends.append(
            (float(apart[-1]), f"{NAMES.get(panel, panel)}\nfrom truth", colour(theme, panel))
        )
    name_ends(ax, theme, ends)
    return figure


def heat_map(finding: Finding, got: Any, truth: Any, theme: Theme) -> Figure:
    """Where in the worst tensor the error lies: |difference|, folded to two dimensions."""
    apart = np.abs(got.astype(np.float64) - truth.astype(np.float64))
    flat = folded(apart)
    note = f"{finding.panel}; largest {significant(float(apart.max()))}; shape {apart.shape}"
    figure = canvas(theme, f"Error within '{finding.name}'", note)
    ax = axes(figure, theme, "", "", right=0.9)
    ax.grid(False)
    cells = flat / max(float(flat.max()), 1e-300)
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("error", [theme.grid, colour(theme, finding.panel)])
    ax.imshow(cells, aspect="auto", cmap=shades, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    return figure


def folded(values: Any, most: int = 256) -> Any:
    """An array as a picture of at most `most` x `most`, each cell the largest of its part."""
    rows = values.reshape(1, -1) if values.ndim < 2 else values.reshape(values.shape[0], -1)
    if values.ndim == 4:  # images: pixels below one another, the largest over the channels
        rows = values.max(axis=1).reshape(-1, values.shape[3])
    for axis in (0, 1):
        size = rows.shape[axis]
        if size > most:
            edges = np.linspace(0, size, most, endpoint=False).astype(int)
            rows = np.maximum.reduceat(rows, edges, axis=axis)
    return rows
