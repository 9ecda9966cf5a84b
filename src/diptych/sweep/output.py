"""A sweep's cells as a table (terminal, JSON, CSV, Markdown) and as figures, one a score."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.files import atomic_path, write_json, write_text
from diptych.metrics.table import aligned, interval, markdown, number

Cell = dict[str, Any]
MARKERS = "osD^v<>P"
STYLES = ("-", "--", ":", "-.")


def metrics_of(cells: Sequence[Cell]) -> list[str]:
    """The scores' names, in order."""
    return [score["metric"] for score in cells[0]["scores"]]


def write_all(cells: Sequence[Cell], out: Path) -> dict[str, Any]:
    """Write the tables and figures; gives the content of sweep.json."""
    rows = [_row(cell) for cell in cells]
    content = {"schema": 1, "kind": "diptych sweep", "request": cells[0]["request"], "cells": rows}
    write_json(out / "sweep.json", content)
    write_text(out / "sweep.csv", _csv(rows))
    write_text(out / "sweep.md", markdown(*_table(cells)))
    for metric in metrics_of(cells):
        with atomic_path(out / f"{metric}.png") as temporary:
            temporary.write_bytes(figure(cells, metric))
    return content


def render(cells: Sequence[Cell]) -> str:
    """The table for the terminal."""
    return aligned(*_table(cells))


def _row(cell: Cell) -> dict[str, Any]:
    keys = ("backend", "device", "steps", "eta", "network_calls", "seconds_per_image")
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
    head = ["panel", "steps", "eta", "s/image", *metrics_of(cells)]
    rows = []
    for cell in cells:
        row = [cell["backend"], str(cell["steps"]), f"{cell['eta']:g}"]
        row.append(number(cell["seconds_per_image"], 3))
        for score in cell["scores"]:
            ends = f" ({interval(score['interval'])})" if score["interval"] else ""
            row.append(number(score["value"]) + ends)
        rows.append(row)
    return head, rows


def figure(cells: Sequence[Cell], metric: str) -> bytes:
    """Score against network calls as PNG: a line a panel and eta, with intervals where known."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from diptych.report import drawing

    theme = drawing.LIGHT
    request = cells[0]["request"]
    note = f"{request['num']:,} images x {request['repeats']}, against {request['reference']}"
    with drawing.settings():
        page = drawing.canvas(theme, f"{metric} against network calls", note)
        ax = drawing.axes(page, theme, "network calls an image", metric, right=0.76)
        calls = sorted({cell["network_calls"] for cell in cells})
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(FixedLocator(calls))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        ends = [_line(ax, theme, cells, metric, key) for key in _lines(cells)]
        ax.margins(x=0.05)
        drawing.plain_numbers(ax)
        drawing.name_ends(ax, theme, ends)
        return drawing.png(page)


def _lines(cells: Sequence[Cell]) -> list[tuple[str, float, int]]:
    """(panel, eta, which eta it is) of every line."""
    etas = sorted({cell["eta"] for cell in cells})
    keys = sorted({(cell["backend"], cell["eta"]) for cell in cells})
    return [(backend, eta, etas.index(eta)) for backend, eta in keys]


def _line(
    ax: Any, theme: Any, cells: Sequence[Cell], metric: str, key: tuple[str, float, int]
) -> tuple[float, str, str]:
    from diptych.report import drawing

    backend, eta, which = key
    colour = getattr(theme, backend)
    own = [cell for cell in cells if (cell["backend"], cell["eta"]) == (backend, eta)]
    own.sort(key=lambda cell: cell["network_calls"])
    scores = [next(s for s in cell["scores"] if s["metric"] == metric) for cell in own]
    x = [cell["network_calls"] for cell in own]
    y = [score["value"] for score in scores]
    # Where both panels are there, PyTorch's line is wide and pale and Jittor's lies upon it.
    under = backend == "torch" and any(cell["backend"] == "jittor" for cell in cells)
    style = drawing.line(theme, colour, under) | {"linestyle": STYLES[which % len(STYLES)]}
    style |= {"solid_capstyle": "butt", "zorder": 2 if under else 3}
    ax.plot(x, y, marker=MARKERS[which % len(MARKERS)], **style)
    for at, score in zip(x, scores, strict=True):
        if score["interval"]:
            ax.plot([at, at], score["interval"], color=style["color"], linewidth=1.0)
    return y[-1], f"{backend}, eta {eta:g}", colour
