"""A run's journal: RUN/metrics.jsonl, one JSON line per step, without gaps or repeats."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import machine_faults, parse_json, write_text
from diptych.training.callbacks import Callback, Row


class Journal(Callback):
    """The writer of a run's metrics.jsonl.

    Attributes:
        last_loss: the loss of the last row written; nan before the first.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.jsonl"
        self.last_loss = math.nan

    def start(self, step: int) -> None:
        """Drop the rows after `step`: those steps will be repeated."""
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.last_loss = float(rows[-1]["loss"]) if rows else math.nan

    def rows(self, rows: Sequence[Row]) -> None:
        with machine_faults(f"writing {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        self.last_loss = rows[-1]["loss"]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a journal; drop an incomplete last line left by a crash."""
    if not path.exists():
        return []
    rows = []
    lines = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            if line:
                row = parse_json(line, finite=False)
                rows.append({**row, "step": int(row["step"]), "loss": float(row["loss"])})
        except (KeyError, TypeError, ValueError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not a row of a journal") from error
    return rows
