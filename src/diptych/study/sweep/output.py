"""A sweep's cells as a table (terminal, JSON, CSV, Markdown) and as figures, one per score."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.evaluation.score_table import aligned, interval, markdown, number
from diptych.files import atomic_path, write_json, write_text
from diptych.runs.records import Sweep

Cell = dict[str, Any]
MARKERS = "osD^v<>P"
STYLES = ("-", "--", ":", "-.")
# Okabe and Ito's set without yellow, and three of Tol's, dark enough for thin lines on white.
SOLVERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#332288", "#882255", "#117733", "#56B4E9",
           "#E69F00", "#1f2328")  # fmt: skip


def metrics_of(cells: Sequence[Cell]) -> list[str]:
    """The scores' names, in order."""
    return [score["metric"] for score in cells[0]["scores"]]


def content_of(cells: Sequence[Cell]) -> dict[str, Any]:
    """The content of sweep.json."""
    rows = [_row(cell) for cell in cells]
    return {"schema": 1, "kind": "diptych sweep", "request": cells[0]["request"], "cells": rows}


def write_all(cells: Sequence[Cell], out: Path) -> dict[str, Any]:
    """Write the tables and figures; return the content of sweep.json."""
    content = content_of(cells)
    write_json(out / "sweep.json", Sweep.checked(content))
    write_text(out / "sweep.csv", _csv(content["cells"]))
    write_text(out / "sweep.md", markdown(*_table(cells)))
    for metric in metrics_of(cells):
        with atomic_path(out / f"{metric}.png") as temporary:
            temporary.write_bytes(figure(cells, metric))
    return content


def render(cells: Sequence[Cell]) -> str:
    """The table for the terminal."""
    return aligned(*_table(cells))


def _row(cell: Cell) -> dict[str, Any]:
    keys = (
        "backend", "device", "solver", "steps", "eta", "network_calls", "seconds_per_image",
    )  # fmt: skip
    row = {key: cell.get(key) for key in keys}
    for score in cell["scores"]:
        low, high = score["interval"] or (None, None)
        row[score["metric"]] = score["value"]
        row[f"{score['metric']}_low"], row[f"{score['metric']}_high"] = low, high
        row[f"{score['metric']}_split_half"] = score["split_half"]
        row[f"{score['metric']}_protocol_id"] = score["protocol_id"]
    return row


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(cells: Sequence[Cell]) -> tuple[list[str], list[list[str]]]:
    head = ["panel", "solver", "eta", "calls", "s/image", *metrics_of(cells)]
    rows = []
    for cell in cells:
        eta = "" if cell["eta"] is None else f"{cell['eta']:g}"
        row = [cell["backend"], cell["solver"], eta, str(cell["network_calls"])]
        row.append(number(cell["seconds_per_image"], 3))
        for score in cell["scores"]:
            ends = f" ({interval(score['interval'])})" if score["interval"] else ""
            row.append(number(score["value"]) + ends)
        rows.append(row)
    return head, rows


def figure(cells: Sequence[Cell], metric: str) -> bytes:
    """Plot score against network calls as PNG: one line per (backend, solver, eta), intervals."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from diptych.figures import charts

    theme = charts.LIGHT
    request = cells[0]["request"]
    lines = _lines(cells)
    height = max(charts.SIZE[1], 1.4 + 0.3 * len(lines))
    note = f"{request['num']:,} images x {request['repeats']}"
    if request["reference"]:
        note += f", against {request['reference']}"
    with charts.settings():
        title = f"{metric} against network calls"
        page = charts.canvas(theme, title, note, (charts.SIZE[0], height))
        ax = charts.axes(page, theme, "network calls an image", metric, right=0.72)
        calls = sorted({cell["network_calls"] for cell in cells})
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(calls))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        scores = [value_of(cell, metric) for cell in cells]
        if min(scores) > 0 and max(scores) > 20 * min(scores):
            ax.set_yscale("log")
        ends = [_line(ax, theme, cells, metric, line) for line in lines]
        ax.margins(x=0.05)
        charts.plain_numbers(ax)
        charts.name_ends(ax, theme, ends)
        return charts.png(page)


def value_of(cell: Cell, metric: str) -> float:
    """The cell's score for this metric."""
    return float(next(score["value"] for score in cell["scores"] if score["metric"] == metric))


@dataclass(frozen=True)
class _Line:
    """A line of the figure: its cells, its name, and its place, which sets its style."""

    backend: str
    solver: str
    eta: float | None
    name: str
    place: int


def _lines(cells: Sequence[Cell]) -> list[_Line]:
    """All lines; a line's place among those of its backend sets marker and dashes."""
    keys = list(dict.fromkeys((c["backend"], c["solver"], c["eta"]) for c in cells))
    places = list(dict.fromkeys(key[1:] for key in keys))
    panels, solvers = ({key[i] for key in keys} for i in (0, 1))
    made = []
    for backend, solver, eta in keys:
        several = len(solvers) > 1
        words = [backend] if len(panels) > 1 or not several else []
        words += [solver] if several else []
        words += [f"eta {eta:g}"] if eta is not None and (not several or eta) else []
        made.append(_Line(backend, solver, eta, ", ".join(words), places.index((solver, eta))))
    return made


def _line(
    ax: Any, theme: Any, cells: Sequence[Cell], metric: str, line: _Line
) -> tuple[float, str, str]:
    from diptych.figures import charts

    panels = {cell["backend"] for cell in cells}
    several = len({cell["solver"] for cell in cells}) > 1
    # Colours denote backends; with one backend and several solvers they denote solvers.
    colour = getattr(theme, line.backend, theme.soft)  # engines are grey
    if several and len(panels) == 1:
        colour = SOLVERS[line.place % len(SOLVERS)]
    key = (line.backend, line.solver, line.eta)
    own = [cell for cell in cells if (cell["backend"], cell["solver"], cell["eta"]) == key]
    own.sort(key=lambda cell: cell["network_calls"])
    x = [cell["network_calls"] for cell in own]
    y = [value_of(cell, metric) for cell in own]
    # With both backends, PyTorch's line is wide and pale, and Jittor's is drawn on top of it.
    under = line.backend == "torch" and len(panels) > 1
    dashes = STYLES[(line.place // (len(SOLVERS) if several else 1)) % len(STYLES)]
    style = charts.line(theme, colour, under) | {"linestyle": dashes}
    style |= {"solid_capstyle": "butt", "zorder": 2 if under else 3}
    ax.plot(x, y, marker=MARKERS[line.place % len(MARKERS)], **style)
    for at, cell in zip(x, own, strict=True):
        ends = next(s["interval"] for s in cell["scores"] if s["metric"] == metric)
        if ends:
            ax.plot([at, at], ends, color=style["color"], linewidth=1.0)
    return y[-1], line.name, colour
