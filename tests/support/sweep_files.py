"""The files of a sweep, to be compared with those of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def content(out: Path) -> dict[str, bytes]:
    """Every file by its path."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def timeless(out: Path) -> dict[str, Any]:
    """All files of a sweep without its times."""
    found: dict[str, Any] = {}
    for name, data in content(out).items():
        if name.endswith(".json"):
            value = json.loads(data)
            for row in [value, *value.get("cells", [])]:
                row.pop("seconds", None)
                row.pop("seconds_per_image", None)
            found[name] = value
        elif name in ("sweep.csv", "sweep.md"):
            split = "," if name.endswith("csv") else "|"
            rows = [line.split(split) for line in data.decode().splitlines()]
            at = next(i for i, cell in enumerate(rows[0]) if "s/image" in cell or "seconds" in cell)
            found[name] = [row[:at] + row[at + 1 :] for row in rows]
        else:
            found[name] = data
    return found
