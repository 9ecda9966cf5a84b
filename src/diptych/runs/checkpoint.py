"""Checkpoints: safetensors and a manifest in one folder, there whole or not at all.

    checkpoints/step-00000938/
        manifest.json            step, backend, config identity, sha256 of each file
        raw.safetensors          the weights as trained
        ema.safetensors          their moving average, which is what one samples from
        adam_m.safetensors, adam_v.safetensors

A folder is written under another name and moved into place; only then is an older one removed.
Reading checks every hash, name and shape; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from functools import cache
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
    """The identity of weights: sha256 over names, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name], dtype="<f4")
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save(run: Path, state: State, facts: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of `state` into `run`, then drop all but the last `keep`.

    Args:
        run: the run folder.
        state: the learner's whole state.
        facts: what the manifest says besides: backend, config identity.
        keep: how many checkpoints stay, 1 or more.
    """
    path = run / "checkpoints" / f"step-{state.step:08d}"
    if path.exists():  # written before an interruption; equal by construction
        shutil.rmtree(path)
    with atomic_path(path) as folder:
        folder.mkdir()
        for group in GROUPS:
            # safetensors writes an array's memory as it lies: another order would scramble it.
            arrays = {n: np.ascontiguousarray(a) for n, a in getattr(state, group).items()}
            # Not `save_file`: it would hide the system's error, such as a full disk.
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
    """The newest checkpoint. Raises UserError where there is none."""
    found = all_checkpoints(run)
    if not found:
        raise UserError(f"{run}: holds no checkpoint; train it first: diptych train --out {run}")
    return found[-1]


def load_weights(path: Path, group: str, plan: Plan) -> Weights:
    """One of a checkpoint's `GROUPS`, checked against its manifest and the plan.

    Raises:
        UserError: the file is missing or damaged, or holds another plan's weights.
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
    """A whole checkpoint. Raises UserError where it is incomplete, damaged or of another plan."""
    step = read_json(path / "manifest.json").get("step")
    if not isinstance(step, int):
        raise UserError(f"{path / 'manifest.json'}: holds no step; the checkpoint is damaged")
    return State(step, *(load_weights(path, group, plan) for group in GROUPS))


def read_safetensors(file: Path) -> Weights:
    """The arrays of a safetensors file as float32. Raises UserError where it is damaged."""
    try:
        arrays = load_file(file)
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found") from error
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{file}: not a valid safetensors file ({error}); use another copy"
        ) from error
    return {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}


def weights_of(run: Path) -> dict[str, Path]:
    """The identity of all weights that a run folder still holds, and the checkpoint of each."""
    found: dict[str, Path] = {}
    for checkpoint in all_checkpoints(run):
        for group in ("ema", "raw"):
            file = checkpoint / f"{group}.safetensors"
            if file.is_file():
                identity = _identity(file.resolve(), file.stat().st_mtime_ns)
                found |= {identity: checkpoint} if identity else {}
    return found


@cache
def _identity(file: Path, _changed: int) -> str | None:
    """The sha256 by which manifests and scores name weights; None for a damaged file."""
    try:
        return weights_sha256(read_safetensors(file))
    except UserError:
        return None
