"""What a record must hold before a report reads on: known by its content, checked once.

    of another program   no `kind` of ours, no sampler card: passed by
    damaged              ours, but torn, without a field that the report needs, or with text where
                         a number belongs: left out, and named with the reason

A file that was cut short has no `kind` to read any more; it counts as damaged where the kind can
still be seen in what is left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from diptych.errors import UserError
from diptych.evaluation.score import Score
from diptych.files import parse_json

KINDS = {
    "diptych scores": "scores",
    "diptych sweep": "sweep",
    "align": "ladder",
    "align-train": "training",
    "profile": "profile",
    "batch_times": "batches",
}
MOST_BYTES = 20_000_000
Number = Annotated[FiniteFloat, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Truth = Annotated[bool, Field(strict=True)]


class _Part(BaseModel):
    """What is named here must have this type; further keys are let through."""

    model_config = ConfigDict(extra="allow")


class _Environment(_Part):
    command: list[str] | None = None


class _Samples(_Part):
    solver: str
    num: Whole | None = None
    steps: Whole | None = None
    weights_sha256: str | None = None
    seconds_per_image: Number | None = None
    classes: list[Any] | None = None
    environment: _Environment | None = None


class _Score(_Part):
    metric: str
    value: Number
    protocol: dict[str, Any]
    repeats: list[Number]
    subject: dict[str, Any]


class _Scores(_Part):
    scores: list[_Score] = Field(min_length=1)


class _SweepRequest(_Part):
    weights_sha256: str
    num: Whole | None = None


class _Cell(_Part):
    backend: str
    steps: Whole
    network_calls: Number
    eta: Number | None = None
    solver: str = "ddim"
    seconds_per_image: Number | None = None

    @model_validator(mode="after")
    def _metrics(self) -> _Cell:
        """A metric's value and ends are numbers or missing."""
        extra = self.model_extra or {}
        for name in [k.removesuffix("_protocol_id") for k in extra if k.endswith("_protocol_id")]:
            for key in (name, f"{name}_low", f"{name}_high"):
                value = extra.get(key)
                if value is not None and (
                    isinstance(value, bool)
                    or not isinstance(value, (int, float))
                    or not math.isfinite(value)
                ):
                    raise ValueError(f"{key} should be a number")
        return self


class _Sweep(_Part):
    request: _SweepRequest
    cells: list[_Cell]


class _Rung(_Part):
    rung: str
    verdict: str


class _Planted(_Part):
    verdict: str


class _FirstFailure(_Part):
    rung: str


class _Ladder(_Part):
    preset: str
    config_identity: str
    passed: Truth
    rungs: list[_Rung] = Field(min_length=1)
    mutations: list[_Planted] | None = None
    first_failure: _FirstFailure | None = None


class _Test(_Part):
    equivalent: Truth
    ratio: Number
    low: Number
    high: Number


class _Training(_Part):
    overall: _Test
    seeds: list[Whole] | Whole
    steps: Whole
    margin: Number


class _Phase(_Part):
    name: str
    median_s: Number | None = None
    share: Number | None = None
    note: str | None = None


class _Spread(_Part):
    median_s: Number


class _Overhead(_Part):
    ratio: Number
    low: Number | None = None
    high: Number | None = None


class _Memory(_Part):
    rss_mb: Number | None = None
    allocated_mb: Number | None = None
    reserved_mb: Number | None = None
    live_vars: Number | None = None


class _Profile(_Part):
    backend: str
    phases: list[_Phase] = Field(min_length=1)
    split: _Spread | None = None
    unsplit: _Spread | None = None
    overhead: _Overhead | None = None
    memory: list[_Memory] | None = None


class _Batches(_Part):
    backend: str
    seconds: list[Number] = Field(min_length=1)


MODELS: Mapping[str, type[_Part]] = {
    "samples": _Samples,
    "scores": _Scores,
    "sweep": _Sweep,
    "ladder": _Ladder,
    "training": _Training,
    "profile": _Profile,
    "batches": _Batches,
}


def known(path: Path) -> tuple[str, dict[str, Any], str] | None:
    """The kind of a record, its content, and why it cannot be used ("": it can).

    Returns:
        None for what is no record of ours.
    """
    raw = _bytes(path)
    if raw is None:
        return None
    try:
        content = parse_json(raw, finite=False)
    except (ValueError, RecursionError):
        kind = _torn_kind(path, raw)
        return (kind, {}, "it is no whole JSON") if kind else None
    kind = _kind(path, content) if isinstance(content, dict) else None
    return (kind, content, _wrong(kind, content)) if kind else None


def _bytes(path: Path) -> bytes | None:
    try:
        return None if not path.is_file() or path.stat().st_size > MOST_BYTES else path.read_bytes()
    except OSError:
        return None


def _kind(path: Path, content: Mapping[str, Any]) -> str | None:
    if path.name == "manifest.json" and {"solver", "num", "weights_sha256"} & set(content):
        return "samples" if "solver" in content else None
    return KINDS.get(str(content.get("kind")))


def _torn_kind(path: Path, raw: bytes) -> str | None:
    if path.name == "manifest.json":
        return "samples" if b'"solver"' in raw else None
    found = re.search(rb'"kind":\s*"([^"]+)"', raw)
    return KINDS.get(found[1].decode("utf-8", "replace")) if found else None


def _wrong(kind: str, content: dict[str, Any]) -> str:
    try:
        MODELS[kind].model_validate(content)
        for score in content["scores"] if kind == "scores" else ():
            Score.from_json(score)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    except (UserError, ValueError) as error:  # a protocol with NaN has no id
        return str(error)
    return ""
