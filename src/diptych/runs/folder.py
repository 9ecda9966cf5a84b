"""The provenance files of an output folder, and checks before it is resumed.

config.yaml         of a run: all settings; only durations may change on resuming
environment.json    of a run: machine, versions and data, and each start: step, time, process
manifest.json       of samples and latents: everything their numbers depend on
"""

from __future__ import annotations

import os
import sys
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


def check_resumable(config: Config, run: Path, backend_name: str) -> None:
    """Refuse to resume a run trained with other settings or the other backend (UserError)."""
    before = flatten(load_config(str(run / "config.yaml")))
    for key, value in flatten(config).items():
        if key not in config.duration_keys and before[key] != value:
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
    path = run / "environment.json"
    trained_by = read_json(path).get("backend") if path.exists() else backend_name
    if trained_by != backend_name:
        raise UserError(
            f"{run}: was trained by {trained_by}; resume it with --backend {trained_by}"
        )


def record_start(run: Path, step: int, config: Config, backend: Backend, dataset: Dataset) -> None:
    """Record that training starts after `step`, in addition to the earlier starts."""
    path = run / "environment.json"
    before = read_json(path) if path.exists() else {}
    starts = before.get("starts", [])
    if step and before.get("dataset_sha256") not in (None, dataset.sha256):
        print(f"diptych: {run}: the images are not those of the {step} steps before "
              f"(sha256 {before['dataset_sha256'][:12]}..., now {dataset.sha256[:12]}...)",
              file=sys.stderr)  # fmt: skip
    starts.append({"step": step, "time": time.time(), "pid": os.getpid()})
    write_json(
        path,
        {
            **environment(backend),
            "config_identity": config.identity(),
            "dataset": dataset.name,
            "dataset_split": dataset.split,
            "dataset_images": len(dataset.images),
            "dataset_sha256": dataset.sha256,
            "dataset_origin": dataset.origin,
            "starts": starts,
        },
    )


# Settings that affect an image's numbers but belong to neither the sampler nor the weights.
NUMBERS = (
    "diffusion.", "data.rescaled", "data.logit_transform", "data.dequantization",
    "model.norm_eps", "model.norm_groups",
)  # fmt: skip


def check_same(out: Path, manifest: dict[str, Any], identity: Sequence[str]) -> dict[str, Any]:
    """Read the manifest of an earlier start and check it; {} if there is none.

    Raises:
        UserError: it differs in `identity`, or in a setting that affects the images' numbers.
    """
    if not (out / "manifest.json").exists():
        return {}
    before = read_json(out / "manifest.json")
    was, now = ({key: found.get(key) for key in identity} for found in (before, manifest))
    settings = {**LATER_KEYS, **before["config"]} if "config" in before else {}
    for key, value in settings.items():
        if key.startswith(NUMBERS) and key in manifest["config"]:
            was[key], now[key] = value, manifest["config"][key]
    for key in was:
        if was[key] != now[key]:
            raise UserError(
                f"{out}: was begun with {key}={was[key]}, not {now[key]}; resume it with its own "
                f"settings, or choose another --out"
            )
    return before
