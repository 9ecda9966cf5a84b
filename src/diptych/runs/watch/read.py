"""Readers of a run's resource rows and events, and the cost of their recording."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import read_lines


def read_resources(run: Path) -> list[dict[str, Any]]:
    """Read the rows of RUN/resources.jsonl in time order, without torn lines; [] if none.

    Raises:
        UserError: a whole line that is not a row of this record.
    """
    return _timed(run / "resources.jsonl")


def read_events(run: Path) -> list[dict[str, Any]]:
    """Read the rows of RUN/events.jsonl, like `read_resources`."""
    return _timed(run / "events.jsonl")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that are torn or hold no object are left out.

    A killed process or a full disk leaves a torn line, and the next row may follow on that line.
    """
    return [line.value for line in read_lines(path) if isinstance(line.value, dict)]


def _timed(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in read_lines(path):
        broken = isinstance(line.error, json.JSONDecodeError | UnicodeDecodeError)
        try:
            rows.append({**line.value, "time": float(line.value["time"])})
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            torn = line.last or (broken and line.text.startswith(b"{"))
            if not line.blank and not torn:
                raise UserError(f"{path}, line {line.number}: not a row of this record") from error
    return sorted(rows, key=lambda row: row["time"])


def cost(run: Path) -> dict[str, float] | None:
    """Cost of the resource sampling itself; None if nothing was sampled.

    Returns:
        own_s: processor seconds of the thread; probe_s: those of the per-step readings;
        seconds: the time covered; share: (own_s + probe_s) / seconds, an upper bound of the
        slow-down, reached if the thread always delayed the steps.
    """
    rows = read_resources(run)
    if len(rows) < 2:
        return None
    gaps = [b["time"] - a["time"] for a, b in pairwise(rows)]
    seconds = sum(gap for gap in gaps if gap < 10)  # longer: a pause between two starts
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
