"""Checkpoints: safetensors and a manifest in one folder, written atomically.

    checkpoints/step-00000938/
        manifest.json            step, backend, config identity, SHA-256 of each file
        raw.safetensors          the weights as trained
        ema.safetensors          their moving average, used for sampling
        adam_m.safetensors, adam_v.safetensors

A folder is written under another name and renamed; older ones are removed only after that.
Reading checks every hash, name and shape; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as to_bytes

from diptych.backends.protocol import State
from diptych.errors import UserError
from diptych.files import atomic_path, read_json, sha256_of, write_json
from diptych.network.plan import Plan, check_weights
from diptych.types import Float32, Weights

GROUPS = ("raw", "ema", "adam_m", "adam_v")
_NAME = re.compile(r"step-(\d{8,})")


def weights_sha256(weights: Mapping[str, Float32]) -> str:
    """The identity of weights: SHA-256 over names, shapes and bytes, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(run: Path, state: State, facts: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of `state` into `run`, then drop all but the last `keep`.

    Args:
        run: run folder.
        state: the learner's whole state.
        facts: more entries of the manifest: backend, config identity.
        keep: number of checkpoints to keep, 1 or more.
    """
    path = run / "checkpoints" / f"step-{state.step:08d}"
    if path.exists():  # written before an interruption; equal by construction
        shutil.rmtree(path)
    with atomic_path(path) as folder:
        folder.mkdir()
        for group in GROUPS:
            # safetensors writes an array's raw memory: another order would scramble it.
            arrays = {n: np.ascontiguousarray(a) for n, a in getattr(state, group).items()}
            # Not `save_file`, which would hide system errors such as a full disk.
            (folder / f"{group}.safetensors").write_bytes(to_bytes(arrays))
        files = [f"{group}.safetensors" for group in GROUPS]
        hashes = {name: sha256_of(folder / name) for name in files}
        manifest = {"schema": 1, "step": state.step, **facts, "files": hashes}
        write_json(folder / "manifest.json", manifest)
    for old in all_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return path


def all_checkpoints(run: Path) -> list[Path]:
    """The run's checkpoint folders, oldest first."""
    folder = run / "checkpoints"
    found = [p for p in folder.glob("step-*") if _NAME.fullmatch(p.name) and p.is_dir()]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def latest(run: Path) -> Path:
    """The newest checkpoint folder. Raises UserError if there is none."""
    found = all_checkpoints(run)
    if not found:
        raise UserError(f"{run}: holds no checkpoint; train it first: diptych train --out {run}")
    return found[-1]


def load_weights(path: Path, group: str, plan: Plan) -> Weights:
    """Load one of a checkpoint's `GROUPS`, checked against its manifest and the plan.

    Raises:
        UserError: the file is missing or damaged, or its weights do not fit the plan.
    """
    manifest = read_json(path / "manifest.json")
    file = path / f"{group}.safetensors"
    files = manifest.get("files")
    expected = files.get(file.name) if isinstance(files, dict) else None
    if not file.is_file():
        raise UserError(f"{file}: is missing; the checkpoint is not whole")
    if expected != sha256_of(file):
        raise UserError(
            f"{file}: is damaged (its sha256 is not the manifest's); use another checkpoint"
        )
    weights = read_safetensors(file)
    check_weights(plan, weights, str(file))
    return weights


def load_state(path: Path, plan: Plan) -> State:
    """Load a whole checkpoint. Raises UserError if it is incomplete, damaged or of another plan."""
    step = read_json(path / "manifest.json").get("step")
    if not isinstance(step, int):
        raise UserError(f"{path / 'manifest.json'}: holds no step; the checkpoint is damaged")
    return State(step, *(load_weights(path, group, plan) for group in GROUPS))


def read_safetensors(file: Path) -> Weights:
    """Read the arrays of a safetensors file as float32. Raises UserError if it is damaged."""
    try:
        arrays = load_file(file)
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{file}: not a valid safetensors file ({error}); use another copy"
        ) from error
    return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
