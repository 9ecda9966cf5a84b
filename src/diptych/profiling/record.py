"""profile.json: what `diptych profile` measured, as one model for its writer and its readers."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from diptych.runs.records import Number, Part, Truth, Whole

SCHEMA = 2
# How records of schema 1 say in words what `fused` and `kernels` say now.
OLD_FUSED, OLD_KERNELS = "inside the optimizer's one pass over the weights", r"(\d+) kernels"


class Spread(Part):
    """The median of a time, seconds."""

    median_s: Number


class Phase(Part):
    """One phase of a step.

    Attributes:
        median_s: seconds; None for a phase that is `fused`. Of `compile` all seconds, not a step's.
        share: of the split step without data; None where that means nothing.
        fused: whether another phase does this one's work too.
        kernels: of `compile`, how many were loaded; None where they are not counted.
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
    """split / whole, with its interval where there are pairs enough."""

    ratio: Number
    low: Number | None = None
    high: Number | None = None


class Memory(Part):
    """Memory after a step; what the framework does not count is None."""

    rss_mb: Number | None = None
    allocated_mb: Number | None = None
    reserved_mb: Number | None = None
    live_vars: Number | None = None


class Profile(Part):
    """profile.json."""

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
        """Records of schema 1 told `fused` and `kernels` in the notes."""
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
