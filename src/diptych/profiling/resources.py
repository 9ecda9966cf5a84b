"""What a run recorded of the machine while it trained, and why its slow steps were slow.

    RUN/resources.jsonl   a row a second: processor use of this process and of others, memory
    RUN/profile.json      a training step, phase by phase (`diptych profile`)

All of it is optional: an older run has none, and the report leaves those parts out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.profiling import outliers
from diptych.runs.watch import read_events, read_resources
from diptych.types import Float64


def column(rows: list[dict[str, Any]], key: str) -> Float64:
    """One key of all rows as float64, "gpu.memory_mb" for one within another; NaN where it is
    missing or no number."""
    outer, _, inner = key.partition(".")

    def number(row: dict[str, Any]) -> float:
        value = row.get(outer)
        value = value.get(inner) if inner and isinstance(value, dict) else value
        return float(value) if isinstance(value, (int, float)) else np.nan

    return np.array([number(row) for row in rows], dtype=np.float64)


def attribution(run: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The causes of the slow steps, as `diptych.profiling.outliers` finds them in the records.

    Returns:
        The causes, None where they cannot be had; and the file that is damaged, "" where it is
        not known which, None where none is.
    """
    for file, read in (("resources.jsonl", read_resources), ("events.jsonl", read_events)):
        try:
            read(run)
        except UserError:
            return None, file
    try:
        return outliers.attribute(run), None
    except UserError:
        return None, None  # no timed step
    except (KeyError, TypeError, ValueError):
        return None, ""  # text where a number belongs
