"""What a run's folder says of how it was made, and whether it may go on.

config.yaml         all settings; only durations may change where a run is resumed
environment.json    machine, versions and data, and each start: step, time, process
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from diptych.backend import Backend
from diptych.config import DURATION_KEYS, Config, flatten, load_config
from diptych.data import Dataset
from diptych.environment import environment
from diptych.errors import UserError
from diptych.files import read_json, write_json


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
    starts = read_json(path)["starts"] if path.exists() else []
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
