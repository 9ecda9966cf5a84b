"""Requests of the page, checked: each bad value becomes one line."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from diptych.backends import BACKENDS
from diptych.diffusion.timesteps import listed_timesteps
from diptych.errors import UserError
from diptych.sampling.options import SOLVERS, SPACINGS

MOST_IMAGES = 64
MOST_PICTURE = 24_000_000  # characters of base64
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(min_length=1, max_length=4096)]


def _panel(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"expected {' or '.join(BACKENDS)}")
    return name


Panel = Annotated[str, AfterValidator(_panel)]


class Asked(BaseModel):
    """A request; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Settings(Asked):
    """Of the sampler; None: the model's own."""

    solver: Text | None = None
    steps: Annotated[int, Field(ge=1, le=100_000)] | None = None
    order: Annotated[int, Field(ge=1, le=4)] | None = None
    spacing: Text | None = None
    eta: Annotated[float, Field(ge=0, le=100)] | None = None
    classes: Text | None = None
    guidance: Annotated[float, Field(ge=-100, le=100)] | None = None

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return self.model_dump(exclude_none=True)


class Job(Asked):
    """Common fields of all work with a model."""

    source: Name
    panels: list[Panel] = Field(default=[*BACKENDS], min_length=1, max_length=len(BACKENDS))
    settings: Settings = Settings()


class Sample(Job):
    """Images from the noise of a seed."""

    kind: Literal["sample"]
    seed: Seed = 0
    num: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 16


class Between(Job):
    """Images between the noises of two seeds."""

    kind: Literal["between"]
    seeds: tuple[Seed, Seed] = Field(default=(0, 1), strict=False)
    between: Annotated[int, Field(ge=0, le=30)] = 6


class Encode(Job):
    """A picture to noise and back; `picture` is the file in base64."""

    kind: Literal["encode"]
    picture: Annotated[str, Field(min_length=1, max_length=MOST_PICTURE, repr=False)]
    refine: Annotated[int, Field(ge=0, le=20)] = 1


class Ladder(Asked):
    """A climb of the ladder."""

    kind: Literal["ladder"]
    preset: Name = "tiny"
    rungs: list[Name] = Field(default=[], max_length=50)
    steps: Annotated[int, Field(ge=1, le=100)] = 10


KINDS: dict[str, type[Sample | Between | Encode | Ladder]] = {
    "sample": Sample, "between": Between, "encode": Encode, "ladder": Ladder,
}  # fmt: skip


def checked(tree: Any) -> Sample | Between | Encode | Ladder:
    """The request in a JSON value.

    Raises:
        UserError: naming the first wrong value.
    """
    kind = tree.get("kind") if isinstance(tree, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"kind: expected one of {', '.join(KINDS)}")
    try:
        found = KINDS[kind].model_validate(tree)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "request"
        given = str(first.get("input"))[:60]
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{place.removeprefix('settings.')}: {message} (given: {given})") from error
    solver = getattr(getattr(found, "settings", None), "solver", None)
    if solver is not None and solver not in SOLVERS:
        raise UserError(f"solver: '{solver}' is not known; one of {', '.join(SOLVERS)}")
    spacing = getattr(getattr(found, "settings", None), "spacing", None)
    if spacing is not None and not _is_spacing(spacing):
        raise UserError(
            f"spacing: '{spacing}' is not known; a name such as uniform, or timesteps such as "
            f"940,600,250,20"
        )
    return found


def _is_spacing(text: str) -> bool:
    """True for a name or a list: a file's path is not read from the page."""
    return text in SPACINGS or listed_timesteps(text) is not None
