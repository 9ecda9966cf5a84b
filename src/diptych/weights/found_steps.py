"""The file of `diptych search-steps`, and its timesteps as a spacing.

    {"kind": "steps", "complete": true, "spacing": "940,600,250,20@1f3a77c0",
     "solver": "ipndm", "order": 3, ...}

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
from diptych.sampling.options import SPACINGS, SamplerOptions
from diptych.weights.find import zoo_model

KIND = "steps"
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

    Where `solver` is None, and eta is not given, the solver with which the file's timesteps were
    judged is taken; where `solver` is missing, it is not for the settings to say.

    Returns:
        The settings, and a line that tells of that solver, or None.

    Raises:
        UserError: as `read_spacing`.
    """
    found = dict(given)
    if found.get("spacing") is None:
        return found, None
    found["spacing"], judged = read_spacing(found["spacing"])
    if not judged or found.get("solver", "") is not None or found.get("eta") is not None:
        return found, None
    found |= {"solver": judged["solver"], "order": found.get("order") or judged["order"]}
    return found, f"sampling with what these timesteps were judged with: {judged_with(judged)}"


def read_spacing(spacing: str | os.PathLike[str]) -> tuple[str, dict[str, Any] | None]:
    """A spacing as the sampler takes it, and what a file's timesteps were judged with.

    Args:
        spacing: a spacing's name, a list of timesteps, a file of `diptych search-steps`, or
            `zoo:NAME`: the file that lies beside that model of the zoo. A name or a list is that
            even if a file is called so.

    Returns:
        The name or list, and for a file {"solver": ..., "order": ...}, else None.

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
            f"{text}: is no file of diptych search-steps; give one, or a spacing's name"
        )
    if tree.get("complete") is not True:
        raise UserError(f"{text}: its search has not ended; go on with --resume")
    listed, solver, order = (tree.get(key) for key in ("spacing", "solver", "order"))
    if not (isinstance(listed, str) and isinstance(solver, str) and isinstance(order, int | None)):
        raise UserError(f"{text}: spacing, solver or order is damaged; search anew")
    return listed, {"solver": solver, "order": order}


def judged_with(settings: dict[str, Any]) -> str:
    """The solver and its order, in words."""
    order = settings["order"]
    return str(settings["solver"]) + ("" if order is None else f", order {order}")
