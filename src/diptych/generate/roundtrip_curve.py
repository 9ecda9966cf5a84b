"""The mean error of the round trip against the number of steps: table and figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diptych.files import atomic_path, write_json, write_text
from diptych.generate.roundtrip import EncodeRequest, round_trip, steps_shown
from diptych.model import Model
from diptych.runs.records import Curve
from diptych.sampling.inversion import Inversion

Row = dict[str, Any]


def measure(model: Model, request: EncodeRequest, out: Path, progress: bool) -> list[Row]:
    """Measure the error at each number of steps; results already in curve.json are reused."""
    path = out / "curve.json"
    done = {row["steps"]: row for row in Curve.content(path)["curve"]} if path.exists() else {}
    missing = [one for one in request.curve if one.sampler.steps not in done]
    with steps_shown(model, missing, len(request.batches), progress) as count:
        for one in missing:
            done[one.sampler.steps] = _row(model, request, one, count)
            curve = {"curve": [done[steps] for steps in sorted(done)]}
            write_json(path, Curve.checked(curve))
    rows = [done[steps] for steps in sorted(done)]
    lines = [f"{row['steps']},{row['network_calls']},{row['mse']:.9g}\n" for row in rows]
    write_text(out / "curve.csv", "steps,network_calls,mse\n" + "".join(lines))
    with atomic_path(out / "curve.png") as temporary:
        temporary.write_bytes(figure(rows, request, model.engine.backend.name))
    return rows


def _row(model: Model, request: EncodeRequest, one: Inversion, count: Any) -> Row:
    pixels = request.inputs.pixels
    errors = [round_trip(model, one, pixels[rows], count).error for rows in request.batches]
    up = one.card(model.engine.schedule)["network_calls"]
    return {
        "steps": one.sampler.steps,
        "network_calls": up + one.sampler.steps,
        "mse": float(np.concatenate(errors)[: len(pixels)].mean()),
    }


def figure(rows: Sequence[Row], request: EncodeRequest, backend: str) -> bytes:
    """Error against steps, both logarithmic, as PNG."""
    from diptych.figures import charts

    with charts.settings():
        inputs, inversion = request.inputs, request.inversion
        note = f"{len(inputs.pixels)} images of {inputs.name}, {inversion.sampler.spacing} spacing"
        note += f", {inversion.refine} rounds of refinement" if inversion.refine else ""
        theme = charts.LIGHT
        sheet = charts.canvas(theme, "Error of encoding and decoding", note)
        ax = charts.axes(sheet, theme, "steps each way", "mean squared error, pixels 0 to 1")
        ax.set_xscale("log")
        ax.set_yscale("log")
        steps = [row["steps"] for row in rows]
        errors = [max(row["mse"], 1e-12) for row in rows]
        colour = getattr(theme, backend, theme.soft)  # engines are grey
        ax.plot(steps, errors, color=colour, linewidth=1.8, marker="o", markersize=4.5)
        ax.set_xticks(steps, [f"{n:,}" for n in steps], minor=False)
        ax.set_xticks([], minor=True)
        charts.plain_numbers(ax)
        names = {"torch": "PyTorch panel", "jittor": "Jittor panel"}
        charts.name_ends(ax, theme, [(errors[-1], names.get(backend, backend), colour)])
        return charts.png(sheet)
