"""profile.json: the measurements of `diptych profile`, as one model for its writer and readers."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from diptych.runs.records import Number, Part, Truth, Whole

SCHEMA = 2
# Words in records of schema 1 for the present `fused` and `kernels`.
OLD_FUSED, OLD_KERNELS = "inside the optimizer's one pass over the weights", r"(\d+) kernels"


class Spread(Part):
    """The median of a time in seconds."""

    median_s: Number


class Phase(Part):
    """One phase of a step.

    Attributes:
        median_s: seconds; None if `fused`. For `compile` the total, not one step's.
        share: share of the split step without data; None for `data`, `compile` and if `fused`.
        fused: True if another phase does this one's work too.
        kernels: number of kernels loaded, for `compile`; None if they are not counted.
    """

    name: str
    median_s: Number | None = None
    p5_s: Number | None = None
    p95_s: Number | None = None
    share: Number | None = None
    note: str = ""
    fused: Truth = False
    kernels: Whole | None = None


class Overhead(Part):
    """The ratio split / whole, with its interval if there are enough pairs."""

    ratio: Number
    low: Number | None = None
    high: Number | None = None


class Memory(Part):
    """Memory after a step; None for counters that the framework lacks."""

    rss_mb: Number | None = None
    allocated_mb: Number | None = None
    reserved_mb: Number | None = None
    live_vars: Number | None = None


class Profile(Part):
    """The content of profile.json."""

    backend: str
    preset: str | None = None
    config_identity: str | None = None
    phases: list[Phase] = Field(min_length=1)
    split: Spread | None = None
    unsplit: Spread | None = None
    overhead: Overhead | None = None
    memory: list[Memory] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_schema_1(cls, content: Any) -> Any:
        """Convert records of schema 1, which gave `fused` and `kernels` in the notes."""
        old = isinstance(content, dict) and content.get("schema") in (None, 1)
        phases = content.get("phases") if old else None
        if not isinstance(phases, list):
            return content
        return {**content, "phases": [_renewed(phase) for phase in phases]}


def _renewed(phase: Any) -> Any:
    note = phase.get("note") if isinstance(phase, dict) else None
    if not isinstance(note, str):
        return phase
    kernels = re.search(OLD_KERNELS, note)
    found = {"fused": note == OLD_FUSED, "kernels": int(kernels[1]) if kernels else None}
    told = "" if note == OLD_FUSED else note.partition(f"; {kernels[0]}" if kernels else "\0")[0]
    return found | {**phase, "note": told}
