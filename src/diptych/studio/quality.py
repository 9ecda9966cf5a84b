"""Scores of each solver by its steps: tables for a model, from the package and sweeps.

quality.json holds the tables of docs/scores.md and is written by docs/scores.py; a sweep's cells
come from its sweep.json.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from diptych.config.load import Config
from diptych.diffusion.schedule import make_schedule
from diptych.files import parse_json
from diptych.sampling.options import SamplerOptions
from diptych.study.sweep.variants import parse, steps_for


def tables(weights_sha256: str, config: Config, sweeps: list[dict[str, Any]]) -> list[Any]:
    """Tables for these weights: {title, metric, images, earlier, rows: [{name, settings, cells}]}.

    `earlier`: cells of multistep solvers are those of `--no-euler-at-final`. A cell is {steps,
    calls, mean, low, high}; the ends are None without an interval.
    """
    shipped = parse_json((files("diptych.studio") / "quality.json").read_text("utf-8"))
    found = []
    if weights_sha256.startswith(shipped["weights_sha256"]):
        schedule = make_schedule(config.diffusion)
        for table in shipped["tables"]:
            rows = []
            for name, cells in table["rows"].items():
                settings = dict(parse(name).settings)
                options = SamplerOptions(**settings)
                rows.append(
                    {
                        "name": name,
                        "settings": settings,
                        "cells": [
                            {
                                "steps": steps_for(options, int(calls), schedule),
                                "calls": int(calls),
                                "mean": mean,
                                "low": low,
                                "high": high,
                            }
                            for calls, (mean, low, high) in cells.items()
                        ],
                    }
                )
            found.append(
                {
                    "title": "docs/scores.md",
                    "metric": table["metric"],
                    "images": shipped["images"],
                    "earlier": shipped["earlier"],
                    "rows": rows,
                }
            )
    for sweep in sweeps:
        found += _swept(sweep)
    return found


def _swept(sweep: dict[str, Any]) -> list[Any]:
    """One table for each metric of a sweep, the first backend of each cell."""
    keys = dict.fromkeys(key for cell in sweep["cells"] for key in cell)
    metrics = [key.removesuffix("_protocol_id") for key in keys if key.endswith("_protocol_id")]
    found = []
    for metric in metrics:
        rows: dict[str, dict[str, Any]] = {}
        for cell in sweep["cells"]:
            if cell.get(metric) is None:
                continue
            name, eta = str(cell["solver"]), cell.get("eta")
            settings = dict(parse(name).settings) | ({} if eta is None else {"eta": eta})
            label = f"{cell['backend']}: {name}" + ("" if eta is None else f", eta {eta:g}")
            row = rows.setdefault(label, {"name": label, "settings": settings, "cells": []})
            row["cells"].append(
                {
                    "steps": cell["steps"],
                    "calls": cell["network_calls"],
                    "mean": cell[metric],
                    "low": cell.get(f"{metric}_low"),
                    "high": cell.get(f"{metric}_high"),
                }
            )
        found.append(
            {
                "title": sweep["title"],
                "metric": metric,
                "images": None,
                "earlier": False,
                "rows": list(rows.values()),
            }
        )
    return found
