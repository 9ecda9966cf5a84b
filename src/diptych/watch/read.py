"""A run's resource rows and events, read back, and what their recording cost."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from diptych.errors import UserError


def read_resources(run: Path) -> list[dict[str, Any]]:
    """The rows of RUN/resources.jsonl in order of time; a torn last line is dropped, none: []."""
    return _rows(run / "resources.jsonl")


def read_events(run: Path) -> list[dict[str, Any]]:
    """The rows of RUN/events.jsonl, likewise."""
    return _rows(run / "events.jsonl")


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text("utf-8", errors="replace").split("\n")
    last = max((n for n, line in enumerate(lines, 1) if line.strip()), default=0)
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                row = json.loads(line)
                rows.append({**row, "time": float(row["time"])})
        except (ValueError, KeyError, TypeError) as error:
            if number < last:  # a killed run may leave one torn line, followed by a resumed run's
                if line.startswith("{") and not line.rstrip().endswith("}"):
                    continue
                raise UserError(f"{path}, line {number}: not a row of this record") from error
    return sorted(rows, key=lambda row: row["time"])


def cost(run: Path) -> dict[str, float] | None:
    """What the sampling itself cost; None where nothing was sampled.

    Returns:
        own_s: processor seconds of the thread; probe_s: those of the per-step readings;
        seconds: the time covered; share: (own_s + probe_s) / seconds, an upper bound of the
        slow-down, as if the thread had stood in the steps' way all the while.
    """
    rows = read_resources(run)
    if len(rows) < 2:
        return None
    gaps = [b["time"] - a["time"] for a, b in pairwise(rows)]
    seconds = sum(gap for gap in gaps if gap < 10)  # a longer one is a pause between two starts
    own = sum(row.get("own_s", 0.0) for row in rows[1:])
    probe = sum(row.get("probe_s", 0.0) for row in rows[1:])
    share = (own + probe) / seconds if seconds > 0 else 0.0
    return {
        "own_s": own,
        "probe_s": probe,
        "seconds": seconds,
        "share": share,
        "samples": float(len(rows)),
    }
