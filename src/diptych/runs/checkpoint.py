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
import logging
import re
import shlex
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from diptych.backends.protocol import State
from diptych.config.load import Config
from diptych.errors import UserError
from diptych.files import atomic_path, machine_faults, numpy_array, sha256_of, write_json
from diptych.network.parameters import check_weights
from diptych.network.plan import Plan
from diptych.runs.records import Saved
from diptych.types import Float32, Weights

log = logging.getLogger(__name__)

GROUPS = ("raw", "ema", "adam_m", "adam_v")
OWN_NETWORK = "own"  # in a manifest: the weights are of a network that the user brought
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
        write_json(folder / "manifest.json", Saved.checked(manifest))
    for old in all_checkpoints(run)[:-keep]:
        try:
            shutil.rmtree(old)
        except OSError as error:  # a network file system, where another process reads it
            log.warning("%s: cannot be removed (%s); remove it later", old, error.strerror)
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
        again = f"diptych train --resume --out {shlex.quote(str(run))}"
        raise UserError(f"{run}: holds no checkpoint; train it first: {again}")
    return found[-1]


class Damaged(UserError):
    """A checkpoint that is not whole, or not as it was written; an older one may be."""


def read_manifest(path: Path, config: Config | None = None) -> dict[str, Any]:
    """A checkpoint's manifest, checked.

    Args:
        path: the checkpoint's folder.
        config: of the run that it belongs to; None: not compared.

    Raises:
        Damaged: no manifest, or a step that is not the folder's.
        UserError: it was trained with another config.
    """
    file = path / "manifest.json"
    try:
        manifest = Saved.content(file)
    except UserError as error:
        raise Damaged(f"{error}; the checkpoint is not whole: use another one") from error
    if named := _NAME.fullmatch(path.name):
        step = manifest.get("step")
        if type(step) is not int or step != int(named[1]):
            raise Damaged(
                f"{file}: says step {step}, its folder says {int(named[1])}; the checkpoint was "
                f"changed or damaged: use another one"
            )
    trained = manifest.get("config_identity")
    if config is not None and trained not in (None, config.identity(), config.identity(True)):
        raise UserError(
            f"{path}: was trained with another config than the run's config.yaml now holds; "
            f"restore that file, or train into another folder"
        )
    return manifest


def load_weights(
    path: Path, group: str, plan: Plan | None, config: Config | None = None
) -> Weights:
    """One of a checkpoint's `GROUPS`, checked against its manifest and the plan.

    Args:
        path: the checkpoint's folder.
        group: which of them.
        plan: of the network; None for a network of the user's own, which is checked when the
            weights are put into it.
        config: as in `read_manifest`.

    Raises:
        Damaged: the file is missing or damaged.
        UserError: it holds another plan's weights, or was trained with another config.
    """
    manifest = read_manifest(path, config)
    if plan is not None and manifest.get("network") == OWN_NETWORK:
        raise UserError(
            f"{path}: holds a network of one's own, which only Python can load: "
            f"diptych.load({str(path)!r}, network=make_network)"
        )
    if plan is None and manifest.get("network") != OWN_NETWORK:
        raise UserError(f"{path}: holds Diptych's own network; leave network= out")
    file = path / f"{group}.safetensors"
    expected = manifest.get("files", {}).get(file.name)
    if not file.is_file():
        raise Damaged(f"{file}: is missing; the checkpoint is not whole")
    if expected != sha256_of(file):
        raise Damaged(
            f"{file}: is damaged (its sha256 is not the manifest's); use another checkpoint"
        )
    weights = read_safetensors(file)
    if plan is not None:
        check_weights(plan, weights, str(file))
    return weights


def load_state(path: Path, plan: Plan | None, config: Config | None = None) -> State:
    """A whole checkpoint; arguments and errors as in `load_weights`."""
    step = read_manifest(path, config).get("step")
    if type(step) is not int or step < 0:
        raise Damaged(f"{path / 'manifest.json'}: says step {step}; the checkpoint is damaged")
    return State(step, *(load_weights(path, group, plan) for group in GROUPS))


def newest_state(
    run: Path, plan: Plan | None, config: Config
) -> tuple[State | None, list[Damaged]]:
    """The newest checkpoint that is whole, and the faults of the newer ones.

    Raises:
        Damaged: there are checkpoints, and none is whole.
        UserError: as in `load_weights`.
    """
    faults: list[Damaged] = []
    for path in reversed(all_checkpoints(run)):
        try:
            return load_state(path, plan, config), faults
        except Damaged as fault:
            faults.append(fault)
    if faults:
        raise faults[0]
    return None, []


def set_aside(run: Path, step: int) -> None:
    """Rename the checkpoints after a step: they are damaged, and must not count as the newest."""
    for path in all_checkpoints(run):
        if int(path.name.removeprefix("step-")) > step:
            with machine_faults(f"renaming {path}"):
                aside = path.with_name(f"{path.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)


def read_safetensors(file: Path) -> Weights:
    """Read the arrays of a safetensors file as float32. Raises UserError if it is damaged."""
    try:
        with safe_open(file, framework="numpy") as held:
            arrays = {name: numpy_array(held, name) for name in held.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"{file}: not found") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
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
