"""Checks before a study begins, and notes on the linked trainings that it reuses."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from diptych.backends import check_device
from diptych.config.load import DURATION_KEYS, flatten, load_config
from diptych.errors import UserError
from diptych.evaluation.features.weights_file import inception_weights
from diptych.files import contents, read_json, sha256_of
from diptych.generate.parts import OTHERS
from diptych.runs import checkpoint
from diptych.runs.folder import backend_of
from diptych.runs.reader import last_step
from diptych.runs.records import StudyNotes
from diptych.study.reproduce.request import StudyRequest

log = logging.getLogger(__name__)

SAME = ("preset", "backends", "seeds", "steps", "epochs", "overrides", "quick", "use", "images",
        "repeats", "sample_steps", "sweep_steps", "sweep_etas", "sweep_images", "data",
        "device")  # fmt: skip


def check(request: StudyRequest, out: Path) -> None:
    """Refuse a request that cannot be met, or an `out` that holds something else (UserError)."""
    request.config()
    check_device(request.device)
    if request.data and not Path(request.data).exists():
        raise UserError(f"--data {request.data}: not found; give the folder that holds the data")
    if request.inception:
        inception_weights(Path(request.inception))  # read whole now: used after the trainings
    path = out / "study.json"
    if path.is_file():
        before = StudyNotes.read(path).request
        now = plain(request)
        if before.get("inception") and not now["inception"]:
            raise UserError(
                f"{out}: holds a study with --inception {before['inception']}; name "
                f"that file again, or choose another --out"
            )
        was, here = before.get("inception"), now["inception"]
        moved = was and here and was != here and Path(was).is_file()
        if moved and sha256_of(Path(str(was))) != sha256_of(Path(str(here))):
            raise UserError(
                f"{out}: holds a study with --inception {was}, and {here} holds other weights; "
                f"name that file again, or choose another --out"
            )
        for key in SAME:
            if before.get(key) != now[key]:
                raise UserError(
                    f"{out}: holds a study with {key}={before.get(key)}, not {now[key]}; go on "
                    f"with its own settings, or choose another --out"
                )
    elif out.is_dir() and any(not OTHERS.fullmatch(path.name) for path in contents(out)):
        raise UserError(f"{out}: is not empty, and holds no study; choose another --out")
    for name, folder in request.use:
        _check_linked(request, name, Path(folder))


def plain(request: StudyRequest) -> dict[str, Any]:
    """The request as JSON returns it: lists instead of tuples."""
    return {key: _lists(value) for key, value in asdict(request).items()}


def _lists(value: Any) -> Any:
    return [_lists(each) for each in value] if isinstance(value, (list, tuple)) else value


def _check_linked(request: StudyRequest, name: str, run: Path) -> None:
    """Refuse a run of the other backend, or with other settings (durations may differ)."""
    if not all((run / part).is_file() for part in ("environment.json", "config.yaml")):
        raise UserError(f"--use {name}={run}: not a run folder of `diptych train`")
    checkpoint.latest(run)
    panel, _, seed = name.partition("-seed")
    backend = backend_of(run)
    if backend != panel:
        raise UserError(f"--use {name}={run}: was trained by {backend}")
    config = request.config()
    asked = flatten(config) | {"seed": int(seed)}
    trained = flatten(load_config(str(run / "config.yaml")))
    for key, value in asked.items():
        if key not in DURATION_KEYS and trained[key] != value:
            raise UserError(
                f"--use {name}={run}: was trained with {key}={trained[key]}, this study needs "
                f"{value}; link a training of the study's own settings, or change these by --set"
            )


def linked(request: StudyRequest) -> dict[str, dict[str, Any]]:
    """For each linked training: its folder, the steps of its weights, and the requested steps.

    The requested steps are None if the run does not say how many images it was trained on.
    """
    config = request.config()
    found: dict[str, dict[str, Any]] = {}
    for name, folder in request.use:
        run = Path(folder)
        environment = read_json(run / "environment.json")
        found[name] = {
            "run": folder,
            "steps": int(checkpoint.latest(run).name.removeprefix("step-")),
            "asked_steps": last_step(config, environment),
        }
    return found


def say_lengths(found: dict[str, dict[str, Any]]) -> None:
    """A warning for each linked training that is shorter or longer than asked."""
    for name, each in found.items():
        steps, asked = each["steps"], each["asked_steps"]
        if asked is not None and steps != asked:
            log.warning(
                "%s: the linked run was trained for %s steps, this study asks for %s; it is used "
                "as it is",
                name,
                f"{steps:,}",
                f"{asked:,}",
            )
