"""The figures of a climb: errors layer by layer, loss curves in lockstep, the worst tensor.

Every number is one that decided a verdict.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from diptych.align.ladder.judge import Finding, Verdict
from diptych.backends import TITLES
from diptych.figures.numbers import significant
from diptych.pages.catalogue import same
from diptych.pages.document import Gallery, Picture, Plot, Trace

LEAST = 1e-9  # drawn for an error of zero on a log axis
MODES = {"free": "Layers, running freely", "fed": "Layers, fed with the reference's inputs"}
Colours = Mapping[str, str]  # backend -> colour name that the page looks up


def layer_errors(verdict: Verdict, mode: str, colours: Colours) -> Plot:
    """Each layer's error and gate in one mode, in the order of computation."""
    rows = [f for f in verdict.findings if f.name.startswith(f"{mode}/") and not f.text]
    traces = []
    for panel in dict.fromkeys(f.panel for f in rows):
        own, name = [f for f in rows if f.panel == panel], TITLES.get(panel, panel)
        x = list(range(1, len(own) + 1))
        errors = [max(f.error, LEAST) if np.isfinite(f.error) else 1.0 for f in own]
        layers = [f.name.partition("/")[2] for f in own]
        gates = [max(f.gate, LEAST) for f in own]
        traces.append(_line(f"{name}, allowed", "soft", x, gates, dash="dash"))
        traces.append(_line(name, colours[panel], x, errors, hover=layers))
    note = "largest error over largest value; dashed: the allowed error"
    axes = ("layer, in the order of computation", "error")
    return _plot(f"layers-{mode}", MODES[mode], axes, traces, note, log_y=True)


def losses(curves: Mapping[str, Any], colours: Colours) -> Plot:
    """The backends' losses in lockstep, above the reference's."""
    x = list(range(1, len(curves["truth"]) + 1))
    traces = [_line("float64 reference", "soft", x, curves["truth"], under=True)]
    traces += [
        _line(TITLES.get(panel, panel), colours[panel], x, rows[0])
        for panel, rows in curves.items()
        if panel != "truth"
    ]
    note = "wide and pale: the float64 reference"
    return _plot("lockstep", "Loss in lockstep", ("step", "loss"), traces, note)


def envelope(curves: Mapping[str, Any], colours: Colours) -> Plot:
    """Each backend's relative difference from the truth, over the change after one rounding."""
    truth = np.array(curves["truth"])
    panels = [p for p in curves if p != "truth"]
    x = list(range(1, len(truth) + 1))
    moved = [LEAST * np.ones_like(truth)]
    for panel in panels:
        clean = np.array(curves[panel][0])
        moved += [np.abs(np.array(row) - clean) / truth for row in curves[panel][1:]]
    band = np.maximum(np.maximum.accumulate(np.max(moved, axis=0)), LEAST).tolist()
    traces = [Trace("line", same("own change after one rounding"), "soft", x, band,
                    low=[LEAST] * len(x), high=band)]  # fmt: skip
    for panel in panels:
        apart = np.maximum(np.abs(np.array(curves[panel][0]) - truth) / truth, LEAST)
        traces.append(_line(f"{TITLES.get(panel, panel)} from truth", colours[panel], x, apart))
    note = "band: a panel's own change after one rounding of its first input"
    title = "Difference of the losses in lockstep"
    return _plot("envelope", title, ("step", "relative difference"), traces, note, log_y=True)


def heat_map(rung: str, finding: Finding, got: Any, truth: Any) -> Gallery:
    """Location of the error in the worst tensor: |difference|, folded to two dimensions."""
    apart = np.abs(got.astype(np.float64) - truth.astype(np.float64))
    flat = folded(apart)
    cells = 255 - (255 * flat / max(float(flat.max()), 1e-300)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(cells).save(buffer, format="PNG", optimize=True)
    title = f"{finding.panel}; black: {significant(float(apart.max()))}; shape {apart.shape}"
    alt = f"Absolute error within the tensor {finding.name}, white where there is none."
    picture = Picture(f"worst-{rung}", same(title), same(alt), buffer.getvalue())
    return Gallery(same(f"Error within '{finding.name}'"), [picture])


def _line(name: str, colour: str, x: Any, y: Any, **looks: Any) -> Trace:
    return Trace("line", same(name), colour, x, [float(v) for v in y], **looks)


def _plot(
    name: str,
    title: str,
    axes: tuple[str, str],
    traces: list[Trace],
    note: str,
    log_y: bool = False,
) -> Plot:
    alt = f"Line chart: {title.lower()}."
    x, y = map(same, axes)
    return Plot(name, same(title), same(alt), x, y, traces, same(note), log_y=log_y)


def folded(values: Any, most: int = 256) -> Any:
    """An array folded to at most `most` x `most` cells, each the largest value of its part."""
    rows = values.reshape(1, -1) if values.ndim < 2 else values.reshape(values.shape[0], -1)
    if values.ndim == 4:  # images: pixels below one another, the largest over the channels
        rows = values.max(axis=1).reshape(-1, values.shape[3])
    for axis in (0, 1):
        size = rows.shape[axis]
        if size > most:
            edges = np.linspace(0, size, most, endpoint=False).astype(int)
            rows = np.maximum.reduceat(rows, edges, axis=axis)
    return rows
