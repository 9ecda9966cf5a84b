"""The gates as data: `tolerances.yaml`, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class Gate:
    """One rung's factor, why it is what it is, the largest ratio measured, and when."""

    k: float
    reason: str
    measured: float
    date: str


@dataclass(frozen=True)
class Tolerances:
    """The whole file."""

    rounding: float
    cap: float
    least_gradient: float
    rungs: dict[str, Gate]


@cache
def tolerances() -> Tolerances:
    """The packaged file."""
    text = (resources.files("diptych.align.ladder") / "tolerances.yaml").read_text("utf-8")
    tree = yaml.safe_load(text)
    rungs = {
        name: Gate(float(g["k"]), g["reason"], float(g["measured"]), str(g["date"]))
        for name, g in tree.pop("rungs").items()
    }
    return Tolerances(**{key: float(value) for key, value in tree.items()}, rungs=rungs)
