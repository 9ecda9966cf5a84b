"""The file of `diptych search-steps`, and its timesteps as a spacing.

    {"kind": "steps", "complete": true, "spacing": "940,600,250,20@1f3a77c0",
     "solver": "ipndm", "order": 3, ...}

The spacing is the timesteps themselves, with a hash of their levels (`diffusion.timesteps`): so
manifests, scores and folders' names know it by its content, and another schedule or number of steps
is refused wherever it is used.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import read_json
from diptych.sampling.options import SPACINGS
from diptych.weights.find import zoo_model

KIND = "steps"
IN_ZOO = "five-calls.json"  # beside a model's weights


def read_spacing(spacing: str | os.PathLike[str]) -> tuple[str, dict[str, Any] | None]:
    """A spacing as the sampler takes it, and what a file's timesteps were judged with.

    Args:
        spacing: a spacing's name, a list of timesteps, a file of `diptych search-steps`, or
            `zoo:NAME`: the file that lies beside that model of the zoo.

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
    named = text in SPACINGS or not (Path(text).suffix or os.sep in text or Path(text).is_file())
    if named:
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
