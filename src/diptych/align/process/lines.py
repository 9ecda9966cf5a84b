"""The lines that a process of the ladder writes to its stdout; `workers` reads them."""

from __future__ import annotations

import json
from typing import Any


def say(**facts: Any) -> None:
    """Print one JSON line of progress, on a line of its own whatever has been printed before."""
    print(f"\n{json.dumps(facts)}", flush=True)
