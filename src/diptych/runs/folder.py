"""The provenance files of an output folder, and checks before it is resumed.

config.yaml         of a run: all settings; only durations, and the place of the same pictures, may
                    change where it is resumed
environment.json    of a run: machine, versions and data of the last start, and for each start
                    its step, time, process, data, threads and versions
manifest.json       of samples and latents: all that their numbers depend on
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.backends.protocol import Backend
from diptych.config.load import LATER_KEYS, LENGTH_KEYS, Config, flatten, load_config
from diptych.data import Dataset
from diptych.errors import UserError
from diptych.files import read_json, write_json
from diptych.runs.provenance import environment
from diptych.runs.records import MANIFEST_LATER, Begun, Environment

log = logging.getLogger(__name__)

# What changes a run's rounding where it changes between two starts.
ROUNDING = (
    "device", "device_name", "deterministic", "threads", "framework_version", "numpy", "cpu",
    "world",
)  # fmt: skip


def check_resumable(config: Config, run: Path, backend_name: str) -> None:
    """Raises UserError where the run was trained with other settings, or by the other panel.

    Another `data.source` passes: `check_data` compares the pictures themselves.
    """
    before = flatten(load_config(str(run / "config.yaml")))
    for key, value in flatten(config).items():
        if key not in {*config.duration_keys, "data.source"} and before[key] != value:
            why = (
                f", and with train.lr_decay={config.train.lr_decay} every learning rate depends on "
                "the run's length"
                if key in LENGTH_KEYS
                else ""
            )
            raise UserError(
                f"{run}: was trained with {key}={before[key]}, not {value}{why}; resume it with "
                f"its own settings, or train into another folder"
            )
    trained_by = _environment(run).get("backend", backend_name)
    if trained_by != backend_name:
        raise UserError(
            f"{run}: was trained by {trained_by}; resume it with --backend {trained_by}"
        )


def backend_of_run(run: Path, asked: str | None, resume: bool) -> str:
    """The backend that is to train: as asked, else that of the run to resume, else torch."""
    own = _environment(run).get("backend") if resume else None
    return asked or (own if isinstance(own, str) else "torch")


def backend_of(run: Path) -> str:
    """The backend that a run was trained by.

    Raises:
        UserError: environment.json is missing or damaged.
    """
    return Environment.read(run / "environment.json").backend


def is_deterministic(run: Path, asked: bool, resume: bool) -> bool:
    """True if asked for, or if the run to resume was started so."""
    return asked or (resume and _environment(run).get("deterministic") is True)


def check_data(
    run: Path, step: int, dataset: Dataset, config: Config, allow_changed: bool = False
) -> None:
    """Refuse to go on after `step` with other images than before; with `allow_changed`, warn.

    Raises:
        UserError: the images, or the labels of a network with classes, are not the last start's;
            or the source has another name and the run did not record its images.
    """
    before = _last_start(run)
    keys = ["dataset_sha256"]
    if config.model.num_classes:
        keys.append("labels_sha256")
    now = data_hashes(dataset)
    changed = [key for key in keys if before.get(key) not in (None, now[key])]
    if changed:
        what = "images" if changed[0] == "dataset_sha256" else "labels"
        said = (
            f"{run}: the {what} are not those of the {step} steps before (sha256 "
            f"{before[changed[0]][:12]}..., now {str(now[changed[0]])[:12]}...)"
        )
        if not allow_changed:
            raise UserError(
                f"{said}; give the ones that it was trained on, or go on with others by "
                f"--allow-changed-data"
            )
        log.warning("%s", said)
    source = load_config(str(run / "config.yaml")).data.source
    if before.get("dataset_sha256") is None and source != config.data.source:
        raise UserError(
            f"{run}: was trained with data.source={source}, not {config.data.source}, and did not "
            f"record which images these were; give the same source"
        )


def warn_of_changes(run: Path, backend: Backend) -> None:
    """Say in what this start differs from the last one, where that may change the rounding."""
    before, now = {"world": 1} | _last_start(run), environment(backend)
    changed = [
        f"{key} {before[key]} before, now {now[key]}"
        for key in ROUNDING
        if key in before and key in now and before[key] != now[key]
    ]
    if changed:
        log.warning(
            "%s: %s; the numbers may differ in their rounding from an undisturbed run's",
            run,
            ", ".join(changed),
        )


def data_hashes(dataset: Dataset) -> dict[str, str | None]:
    """The identity of a start's images and labels."""
    return {"dataset_sha256": dataset.sha256, "labels_sha256": dataset.labels_sha256}


def record_start(
    run: Path,
    step: int,
    config: Config,
    backend: Backend,
    dataset: Dataset,
    network: dict[str, str] | None = None,
    held_out: dict[str, Any] | None = None,
) -> None:
    """Note that training starts after `step`, beside the starts before it.

    Args:
        network: identifies a user's own network; None: Diptych's, which the config determines.
        held_out: the split off pictures, see `Validation.facts`; None: all are trained on.
    """
    before, now = _environment(run), environment(backend)
    starts = before.get("starts", [])
    start = {"step": step, "time": time.time(), "pid": os.getpid(), **data_hashes(dataset)}
    starts.append(start | {key: now[key] for key in ROUNDING if key in now})
    content = {
        **now,
        "config_identity": config.identity(),
        **({} if network is None else {"network": network}),
        "dataset": dataset.name,
        "dataset_split": dataset.split,
        "dataset_images": len(dataset.images),
        "dataset_sha256": dataset.sha256,
        "dataset_origin": dataset.origin,
        "dataset_left_out": dataset.left_out,
        **({} if held_out is None else {"held_out": held_out}),
        "starts": starts,
    }
    write_json(run / "environment.json", Environment.checked(content))


def _environment(run: Path) -> dict[str, Any]:
    path = run / "environment.json"
    found = read_json(path) if path.exists() else {}
    starts = found.get("starts", [])
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise UserError(
            f"{path}: 'starts' is not a list of starts; restore that file, or train into another "
            f"folder"
        )
    return found


def _last_start(run: Path) -> dict[str, Any]:
    """Record of the last start; older runs recorded it for the whole run only."""
    whole = _environment(run)
    last: dict[str, Any] = (whole.get("starts") or [{}])[-1]
    return whole | last


# Settings that reach an image's numbers without being a sampler's or the weights'.
NUMBERS = (
    "diffusion.", "data.rescaled", "data.logit_transform", "data.dequantization",
    "model.norm_eps", "model.norm_groups",
)  # fmt: skip


def check_same(out: Path, manifest: dict[str, Any], identity: Sequence[str]) -> dict[str, Any]:
    """Read the manifest of an earlier start and check it; {} if there is none.

    Raises:
        UserError: it differs in `identity`, or in a setting that affects the images' numbers.
    """
    before, difference = compare_start(out, manifest, identity)
    if difference:
        raise UserError(
            f"{out}: {difference}; go on with its own settings, or choose another folder"
        )
    return before


def compare_start(
    out: Path, manifest: dict[str, Any], identity: Sequence[str]
) -> tuple[dict[str, Any], str]:
    """The manifest of an earlier start, and its first difference in words; as `check_same`."""
    if not (out / "manifest.json").exists():
        return {}, ""
    before = Begun.content(out / "manifest.json")
    before = {**MANIFEST_LATER, **before}
    was, now = ({key: found.get(key) for key in identity} for found in (before, manifest))
    settings = {**LATER_KEYS, **before["config"]} if "config" in before else {}
    for key, value in settings.items():
        if key.startswith(NUMBERS) and key in manifest["config"]:
            was[key], now[key] = value, manifest["config"][key]
    for key in was:
        if was[key] != now[key]:
            return before, f"was begun with {key}={was[key]}, not {now[key]}"
    return before, ""
