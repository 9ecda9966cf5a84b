"""Columns of RUN/resources.jsonl: one row per second, processor use of this process and others.

The file is optional: an older run has none, and the report leaves those parts out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.runs.records import number
from diptych.types import Float64


def column(rows: list[dict[str, Any]], key: str) -> Float64:
    """One key of all rows as float64, "gpu.memory_mb" for a nested one; NaN if it is missing or
    not a number."""
    outer, _, inner = key.partition(".")

    def cell(row: dict[str, Any]) -> float:
        value = row.get(outer)
        known = number(value.get(inner) if inner and isinstance(value, dict) else value)
        return np.nan if known is None else known

    return np.array([cell(row) for row in rows], dtype=np.float64)
