"""Gates as data, read from `tolerances.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class Gate:
    """One rung's factor k, its reason, the largest ratio measured, and the date."""

    k: float
    reason: str
    measured: float
    date: str


@dataclass(frozen=True)
class Tolerances:
    """The content of `tolerances.yaml`."""

    rounding: float
    cap: float
    least_gradient: float
    rungs: dict[str, Gate]


@cache
def tolerances() -> Tolerances:
    """Read the packaged file; cached."""
    text = (resources.files("diptych.align.ladder") / "tolerances.yaml").read_text("utf-8")
    tree = yaml.safe_load(text)
    rungs = {
        name: Gate(float(g["k"]), g["reason"], float(g["measured"]), str(g["date"]))
        for name, g in tree.pop("rungs").items()
    }
    return Tolerances(**{key: float(value) for key, value in tree.items()}, rungs=rungs)
