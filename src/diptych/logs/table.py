"""A log file as a table: rows of named numbers, and what had to be left out."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from diptych.errors import UserError

MOST_BYTES = 512 * 2**20
MOST_ROWS = 3_000_000
Row = dict[str, float]
TOTAL = "/total"  # ending of the column that holds the total of a `1/938`
TIMED = re.compile(r"time|date|ended", re.IGNORECASE)


@dataclass
class Table:
    """The rows of a log, in the order of the file.

    Attributes:
        format: name of the format.
        rows: column -> number; a cell that is empty or holds no number is absent. NaN and infinity
            are numbers.
        skipped: lines or records without any number of a column.
        torn: True if an unfinished end was left out.
        damaged: why the rest of the file was left out; "" if all was read.
        settings: what the file says of the whole training, such as `max_steps`.
    """

    format: str
    rows: list[Row] = field(default_factory=list)
    skipped: int = 0
    torn: bool = False
    damaged: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def add(self, row: Row, path: Path) -> None:
        """Add a row; one without numbers is counted."""
        if not row:
            self.skipped += 1
            return
        if len(self.rows) >= MOST_ROWS:
            raise UserError(f"{path}: has more than {MOST_ROWS:,} rows; thin it out first")
        self.rows.append(row)


def parse_number(cell: Any, name: str = "") -> float | None:
    """A cell as a number, dates of a time column as seconds since 1970; None if it is neither."""
    if isinstance(cell, bool) or cell is None:
        return None
    if isinstance(cell, (int, float)):
        try:
            return float(cell)
        except OverflowError:
            return math.inf
    if not isinstance(cell, str):
        return None
    text = cell.strip().removesuffix("%")
    if "_" in text:
        return None  # Python would read 1_000
    try:
        return float(text)
    except ValueError:
        pass
    if TIMED.search(name) and len(text) >= 8:
        try:
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
        except ValueError:
            pass
    return None


def numbers_of(cells: dict[str, Any], prefix: str = "") -> Row:
    """The numbers of a JSON object; nested objects as `outer/inner`."""
    found: Row = {}
    for key, value in cells.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= numbers_of(value, f"{name}/")
        elif (number := parse_number(value, name)) is not None:
            found[name] = number
    return found
