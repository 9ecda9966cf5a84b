"""Readers of a run's resource rows and events, and the cost of their recording."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import parse_json


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
    rows = []
    for line in _lines(path):
        try:
            row = parse_json(line, finite=False)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().rstrip().split(b"\n") if path.is_file() else []


def _timed(path: Path) -> list[dict[str, Any]]:
    rows, lines = [], _lines(path)
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line, finite=False)
            rows.append({**row, "time": float(row["time"])})
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            broken = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
            torn = broken and line.startswith(b"{")
            if line.strip() and not torn and number < len(lines):
                raise UserError(f"{path}, line {number}: not a row of this record") from error
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
