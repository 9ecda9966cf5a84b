"""A run's journal: RUN/metrics.jsonl, one JSON line per step, without gaps or repeats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import machine_faults, read_lines, write_text
from diptych.training.callbacks import Callback, Row


class Journal(Callback):
    """The writer of a run's metrics.jsonl."""

    def __init__(self, run: Path) -> None:
        self.path = run / "metrics.jsonl"

    def start(self, step: int) -> None:
        """Drop the rows after `step`: those steps will be repeated."""
        rows = [row for row in read_rows(self.path) if row["step"] <= step]
        if self.path.exists():
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def rows(self, rows: Sequence[Row]) -> None:
        with machine_faults(f"writing {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a journal; drop an incomplete last line left by a crash."""
    rows = []
    for line in read_lines(path):
        row = line.value
        try:
            if not line.blank:
                rows.append({**row, "step": int(row["step"]), "loss": float(row["loss"])})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if line.ended:
                problem = f"{path}, line {line.number}: not a row of a journal"
                raise UserError(problem) from line.error or error
    return rows
