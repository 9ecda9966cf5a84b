"""The file of `diptych search-steps`, and its timesteps as a spacing.

    {"kind": "steps", "complete": true, "spacing": "940,600,250,20@1f3a77c0",
     "solver": "ipndm", "order": 3, "settings": {"clip": true}, ...}

`settings` are the other ones of the sampler that was judged; a file of an earlier version lacks
them.

The spacing is the timesteps themselves, with a hash of their levels (`diffusion.timesteps`): so
manifests, scores and folders' names know it by its content, and another schedule or number of steps
is refused wherever it is used.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diptych.diffusion.classes import parse_classes
from diptych.diffusion.timesteps import listed_timesteps
from diptych.errors import UserError
from diptych.files import read_json
from diptych.sampling.options import FIELDS, SPACINGS, SamplerOptions, option_name
from diptych.weights.find import zoo_model

KIND = "steps"
LIMITS = {"clip", "threshold"}
IN_ZOO = "five-calls.json"  # beside a model's weights


def read_options(given: Mapping[str, Any]) -> tuple[SamplerOptions, str | None]:
    """A sampler's options as a user gives them; a file's timesteps and the classes are read.

    Returns:
        The options, and a line that tells of the solver taken with a file's timesteps, or None.

    Raises:
        UserError: as `read_steps`, or a class that is not a number.
    """
    found, said = read_steps(given)
    if isinstance(found.get("classes"), str):
        found["classes"] = parse_classes(found["classes"])
    return SamplerOptions(**found), said


def read_steps(given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A sampler's settings with a file's timesteps read.

    Where `solver` is None, and eta is not given, the sampler with which the file's timesteps were
    judged is taken, but for what else is given; where `solver` is missing, it is not for the
    settings to say.

    Returns:
        The settings, and a line that tells of that sampler, or None.

    Raises:
        UserError: as `read_spacing`.
    """
    found = dict(given)
    if found.get("spacing") is None:
        return found, None
    found["spacing"], judged = read_spacing(found["spacing"])
    if not judged or found.get("solver", "") is not None or found.get("eta") is not None:
        return found, None
    asked = {name for name, value in found.items() if value is not None}
    if asked & LIMITS:  # one limit replaces the other
        asked |= LIMITS
    own = {name: value for name, value in judged.items() if name not in asked}
    but = ", but for what was asked" if len(own) < len(judged) else ""
    return {**found, **own}, (
        f"sampling with what these timesteps were judged with{but}: {judged_with(own)}"
    )


def read_spacing(spacing: str | os.PathLike[str]) -> tuple[str, dict[str, Any] | None]:
    """A spacing as the sampler takes it, and what a file's timesteps were judged with.

    Args:
        spacing: a spacing's name, a list of timesteps, a file of `diptych search-steps`, or
            `zoo:NAME`: the file that lies beside that model of the zoo. A name or a list is that
            even if a file is called so.

    Returns:
        The name or list, and for a file {"solver": ..., "order": ...} with the other settings,
        else None.

    Raises:
        UserError: the file is missing, something else, or of a search that has not ended.
    """
    text = os.fspath(spacing)
    if text.startswith("zoo:"):
        text = str(zoo_model(text) / IN_ZOO)
        if not Path(text).is_file():
            raise UserError(f"{spacing}: no timesteps were searched for this model of the zoo")
    if text in SPACINGS or listed_timesteps(text) is not None:
        return text, None
    if not (Path(text).suffix or os.sep in text or Path(text).is_file()):
        return text, None
    tree = read_json(Path(text))
    if tree.get("kind") != KIND:
        raise UserError(
            f"{text}: is not a file of diptych search-steps; give one, or a spacing's name"
        )
    if tree.get("complete") is not True:
        raise UserError(f"{text}: its search has not ended; go on with --resume")
    listed, solver, order = (tree.get(key) for key in ("spacing", "solver", "order"))
    if not (isinstance(listed, str) and isinstance(solver, str) and isinstance(order, int | None)):
        raise UserError(f"{text}: spacing, solver or order is damaged; search anew")
    own = tree.get("settings", {})
    if not (isinstance(own, dict) and all(_fits(name, own[name]) for name in own)):
        raise UserError(f"{text}: settings are damaged; search anew")
    return listed, {"solver": solver, "order": order, **own}


def _fits(name: str, value: Any) -> bool:
    """True if a setting beside solver, order and timesteps has a value of its type."""
    if name not in FIELDS or name in ("solver", "order", "steps", "spacing"):
        return False
    if name == "classes":
        numbers = isinstance(value, list) and all(type(each) is int for each in value)
        return numbers or value == "all"
    kind = FIELDS[name].metadata["kind"]
    return type(value) is kind or (kind is float and type(value) is int)


def judged_with(settings: Mapping[str, Any]) -> str:
    """Settings in words, the solver first."""
    told = {option_name(name): value for name, value in settings.items() if value is not None}
    words = [] if "solver" not in told else [str(told.pop("solver"))]
    words += [name if value is True else f"{name} {value}" for name, value in told.items()]
    return ", ".join(words)
