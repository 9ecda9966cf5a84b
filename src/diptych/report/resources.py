"""What a run recorded of the machine while it trained, and why its slow steps were slow.

    RUN/resources.jsonl   a row a second: processor use of this process and of others, memory
    RUN/profile.json      a training step, phase by phase (`diptych profile`)

All of it is optional: an older run has none, and the report leaves those parts out.
"""

from __future__ import annotations

import importlib.util
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.report.records import Floats


def column(rows: list[dict[str, Any]], key: str) -> Floats:
    """One key of all rows as float64, "gpu.memory_mb" for one within another; NaN where it is
    missing or no number."""
    outer, _, inner = key.partition(".")

    def number(row: dict[str, Any]) -> float:
        value = row.get(outer)
        value = value.get(inner) if inner and isinstance(value, dict) else value
        return float(value) if isinstance(value, (int, float)) else np.nan

    return np.array([number(row) for row in rows], dtype=np.float64)


def attribution(run: Path) -> dict[str, Any] | None:
    """The causes of the slow steps, as `diptych.report.outliers` finds them in the records."""
    if importlib.util.find_spec("diptych.report.outliers") is None:
        return None
    try:
        found: dict[str, Any] = import_module("diptych.report.outliers").attribute(run)
    except UserError:
        return None  # no timed step, or rows that say too little
    return found
