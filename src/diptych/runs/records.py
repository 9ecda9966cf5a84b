"""The files beside a run as typed contracts: each is checked by one model when written and read.

    environment.json, manifest.json of a checkpoint                      runs
    manifest.json of samples and latents, part-K-of-N.json, curve.json   generate
    cells/*.json, sweep.json                                             study.sweep
    study.json, stages/*.json, difference.json, batch times              study.reproduce
    scores                                                               evaluation
    align.json, free.json                                                align
    profile.json                                                         `profiling.record`

Other files, such as port.json, protocol.json, nearest.json and that of search-steps, have no model.

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
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Truth = Annotated[bool, Field(strict=True)]


# What a manifest of samples means that does not name it: the entries that came later.
MANIFEST_LATER: dict[str, Any] = {"noise": "host", "precision": "fp32"}

P = TypeVar("P", bound="Part")


class Part(BaseModel):
    """A part of a record: what it names must have this type; further keys are let through."""

    model_config = ConfigDict(extra="allow")

    @classmethod
    def checked(cls, content: dict[str, Any]) -> dict[str, Any]:
        """The content to write, unchanged, if a reader of this model can read it.

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

    @classmethod
    def content(cls, path: Path) -> dict[str, Any]:
        """The JSON of a file as it stands, once it has proved to be this record; as `read`."""
        content = read_json(path)
        cls.of(content, str(path))
        return content


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


class Begun(Part):
    """manifest.json of a folder of samples or latents: what those who go on with it read."""

    complete: Truth = False
    parts: Count | None = None
    num: Whole | None = None
    steps: Whole | None = None
    batch: Count | None = None
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    backend: str | None = None
    device: str | None = None
    weights_sha256: str | None = None
    seconds: Number = 0.0
    images_timed: Whole = 0
    seconds_per_image: Number | None = None
    network_calls: Whole | None = None
    classes: list[Any] | None = None
    noise: str = MANIFEST_LATER["noise"]
    precision: str = MANIFEST_LATER["precision"]
    trajectory: dict[str, Any] = {}
    config: dict[str, Any] = {}
    environment: _About | None = None


class Manifest(Begun):
    """manifest.json of a sample folder."""

    solver: str


class Share(Part):
    """part-K-of-N.json: a part of a folder that is done."""

    seconds: Number
    images: Whole


class _CurvePoint(Part):
    steps: Whole
    network_calls: Whole
    mse: Number


class Curve(Part):
    """curve.json of `diptych encode --curve`."""

    curve: list[_CurvePoint]


class Saved(Part):
    """manifest.json of a checkpoint, or of a saved model."""

    files: dict[str, str] = {}
    sampler: dict[str, Any] | None = None


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


class _CellRequest(Part):
    metrics: list[str]


class _CellScore(Part):
    metric: str
    value: Number
    interval: Annotated[list[Number], Field(min_length=2, max_length=2)] | None
    split_half: Number | None
    protocol_id: str
    protocol: dict[str, Any] | None = None


class CellFile(Part):
    """cells/*.json of a sweep."""

    backend: str
    solver: str
    steps: Whole
    network_calls: Number
    eta: Number | None
    seconds_per_image: Number | None
    request: _CellRequest
    scores: list[_CellScore]


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


# Beginnings of a skipped stage's `reason` in files without `why` and `linked`.
OLD_REASONS = {
    "linked: ": "linked",
    "no Inception weights": "inception",
    "needs both panels": "panels",
}


class _Stage(Part):
    name: str
    state: str = "open"
    seconds: Number | None = None
    reason: str | None = None
    why: str | None = None
    linked: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, content: Any) -> Any:
        """Add `why` and `linked` to a stage of an older file, which has them in `reason` alone."""
        reason = content.get("reason") if isinstance(content, dict) else None
        if not isinstance(reason, str) or "why" in content:
            return content
        start = next((each for each in OLD_REASONS if reason.startswith(each)), "")
        why = OLD_REASONS.get(start)
        linked = reason.removeprefix(start) if why == "linked" else None
        return {**content, "why": why, "linked": linked}


class StageNote(Part):
    """stages/NAME.json of a study."""

    words: list[str] | None = None
    state: str | None = None
    reason: str | None = None
    seconds: Number | None = None
    time: Number = 0.0
    made_of: dict[str, str] | None = None


class StudyNotes(Part):
    """study.json."""

    preset: str | None = None
    quick: Truth = False
    backends: list[str] = []
    seeds: list[Whole] = []
    request: dict[str, Any] = {}
    runs: dict[str, str]
    stages: list[_Stage] = []
