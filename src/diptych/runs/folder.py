"""What a folder says of how it was made, and whether it may go on.

config.yaml         of a run: all settings; only durations may change where it is resumed
environment.json    of a run: machine, versions and data, and each start: step, time, process
manifest.json       of samples and latents: all that their numbers depend on
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.backends.protocol import Backend
from diptych.config.load import DURATION_KEYS, Config, flatten, load_config
from diptych.data import Dataset
from diptych.errors import UserError
from diptych.files import read_json, write_json
from diptych.runs.provenance import environment


def check_resumable(config: Config, run: Path, backend_name: str) -> None:
    """Raises UserError where the run was trained with other settings, or by the other panel."""
    before = flatten(load_config(str(run / "config.yaml")))
    for key, value in flatten(config).items():
        if key not in DURATION_KEYS and before[key] != value:
            raise UserError(
                f"{run}: was trained with {key}={before[key]}, not {value}; resume it with its own "
                f"settings, or train into another folder"
            )
    path = run / "environment.json"
    trained_by = read_json(path).get("backend") if path.exists() else backend_name
    if trained_by != backend_name:
        raise UserError(
            f"{run}: was trained by {trained_by}; resume it with --backend {trained_by}"
        )


def record_start(run: Path, step: int, config: Config, backend: Backend, dataset: Dataset) -> None:
    """Note that training starts after `step`, beside the starts before it."""
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
            "dataset_left_out": dataset.left_out,
            "starts": starts,
        },
    )


# Settings that reach an image's numbers without being a sampler's or the weights'.
NUMBERS = ("diffusion.", "data.rescaled", "data.logit_transform", "data.dequantization")


def check_same(out: Path, manifest: dict[str, Any], identity: Sequence[str]) -> dict[str, Any]:
    """The manifest of an earlier start; empty where there is none.

    Raises:
        UserError: it differs in `identity`, or in a setting that reaches the images' numbers.
    """
    if not (out / "manifest.json").exists():
        return {}
    before = read_json(out / "manifest.json")
    was, now = ({key: found.get(key) for key in identity} for found in (before, manifest))
    for key, value in before.get("config", {}).items():
        if key.startswith(NUMBERS) and key in manifest["config"]:
            was[key], now[key] = value, manifest["config"][key]
    for key in was:
        if was[key] != now[key]:
            raise UserError(
                f"{out}: was begun with {key}={was[key]}, not {now[key]}; resume it with its own "
                f"settings, or choose another --out"
            )
    return before
