"""The files beside a run as typed contracts: each is checked by one model when written and read.

    manifest.json (samples)   generate            align.json, free.json   align
    sweep.json                study.sweep         study.json, difference.json, batch times
    scores                    evaluation                                  study.reproduce
    environment.json          runs                profile.json            `diptych.profiling.record`

The rooms that write most of these lie above the report, which reads them, so the models stand here,
below both. A model names the fields that a reader relies on; further ones are let through, in both
directions. A field that is missing in an older file has a default here, and nowhere else.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from diptych.errors import UserError
from diptych.files import read_json

MOST = 2**53  # a whole number beyond it is no count, and no float64 either
Number = Annotated[FiniteFloat, Field(strict=True, ge=-1e300, le=1e300)]
Whole = Annotated[int, Field(strict=True, ge=-MOST, le=MOST)]
Truth = Annotated[bool, Field(strict=True)]


# What a manifest of samples means that does not name it: the entries that came later.
MANIFEST_LATER: dict[str, Any] = {"noise": "host", "precision": "fp32"}

P = TypeVar("P", bound="Part")


class Part(BaseModel):
    """A part of a record: what it names must have this type; further keys are let through."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def checked(cls, content: dict[str, Any]) -> dict[str, Any]:
        """What is about to be written, unchanged, if a reader of this model can read it.

        Raises:
            ValidationError: a fault of the writer.
        """
        cls.model_validate(content)
        return content

    @classmethod
    def of(cls: type[P], content: Any, where: str) -> P:
        """The record of parsed JSON.

        Raises:
            UserError: the first field that is missing or of a wrong type.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{where}: {first_fault(error)}") from error

    @classmethod
    def read(cls: type[P], path: Path) -> P:
        """The record of a file.

        Raises:
            UserError: not to be read, no whole JSON, or not this record.
        """
        return cls.of(read_json(path), str(path))


def number(value: Any) -> float | None:
    """A finite number of a record as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: Any, least: int = 0) -> int | None:
    """A whole number of a record from `least` on; None for anything else."""
    return value if type(value) is int and least <= value <= MOST else None


def first_fault(error: ValidationError) -> str:
    """The first fault of a record in words: the field, and what it should be."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place or 'content'}: {first['msg'][:1].lower()}{first['msg'][1:]}"


class Environment(Part):
    """environment.json: where a run was trained; `starts` is read by `reader.starts_of`."""

    backend: str
    dataset_images: Annotated[int, Field(strict=True, ge=1, le=MOST)] | None = None
    dataset_sha256: str | None = None


class _About(Part):
    command: list[str] | None = None


class Manifest(Part):
    """manifest.json of a sample folder."""

    solver: str
    num: Whole | None = None
    steps: Whole | None = None
    batch: Whole | None = None
    backend: str | None = None
    weights_sha256: str | None = None
    seconds_per_image: Number | None = None
    network_calls: Whole | None = None
    classes: list[Any] | None = None
    noise: str = MANIFEST_LATER["noise"]
    precision: str = MANIFEST_LATER["precision"]
    environment: _About | None = None


class _Score(Part):
    metric: str
    value: Number
    protocol: dict[str, Any]
    repeats: list[Number]
    subject: dict[str, Any]


class Scores(Part):
    """A file of `diptych evaluate --out`."""

    scores: list[_Score] = Field(min_length=1)


class _SweepRequest(Part):
    weights_sha256: str
    num: Whole | None = None


class _Cell(Part):
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
                if extra.get(key) is not None and number(extra[key]) is None:
                    raise ValueError(f"{key} should be a number")
        return self


class Sweep(Part):
    """sweep.json."""

    request: _SweepRequest
    cells: list[_Cell]


class _Rung(Part):
    rung: str
    verdict: str
    error: Number | None = None
    floor: Number | None = None
    margin: Number | None = None


class _Planted(Part):
    verdict: str


class _FirstFailure(Part):
    rung: str


class Ladder(Part):
    """align.json."""

    preset: str
    config_identity: str
    passed: Truth
    rungs: list[_Rung] = Field(min_length=1)
    mutations: list[_Planted] | None = None
    first_failure: _FirstFailure | None = None


class _Test(Part):
    equivalent: Truth
    ratio: Number
    low: Number
    high: Number


class FreeTraining(Part):
    """free.json of `diptych align train`."""

    overall: _Test
    seeds: list[Whole] | Whole
    steps: Whole
    margin: Number


class BatchTimes(Part):
    """Seconds of every sampled batch."""

    backend: str
    seconds: list[Number] = Field(min_length=1)
    batch: Annotated[int, Field(strict=True, ge=1, le=MOST)] | None = None


class Difference(Part):
    """difference.json: how far two sets of images are apart."""

    images: Whole
    images_equal: Whole
    values: Annotated[int, Field(strict=True, ge=1, le=MOST)]
    values_differing: Whole
    max_levels: Whole
    mean_levels: Number


class _Stage(Part):
    name: str
    state: str = "open"
    seconds: Number | None = None
    reason: str | None = None


class StudyNotes(Part):
    """study.json."""

    preset: str | None = None
    quick: Truth = False
    backends: list[str] = []
    seeds: list[Whole] = []
    runs: dict[str, str]
    stages: list[_Stage] = []
