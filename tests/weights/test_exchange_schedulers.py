"""Folders of diffusers sampled as their scheduler says: diffusers' own images, to one level of 255.

Every value of every key that is read of a DDPM or DDIM scheduler is drawn with once.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import exchange_jobs
from conftest import Panel
from diptych.files import read_json
from diptych.weights.convert import convert
from diptych.weights.find import find_weights
from diptych.weights.formats.schedulers import SCHEDULERS, read_scheduler
from diptych.weights.formats.torch_write import write_torch

OLD = Path(__file__).parents[1] / "old_records" / "mnist-torch"
DDPM, DDIM = "DDPMScheduler", "DDIMScheduler"
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
LAST = {**ZERO, "timestep_spacing": "trailing"}
CASES: list[tuple[str, dict[str, Any]]] = [
    *((kind, change) for kind in (DDPM, DDIM) for change in (
        {}, {"clip_sample": False}, {"clip_sample": True}, {"thresholding": True},
        {"thresholding": True, "clip_sample": False, "dynamic_thresholding_ratio": 0.5},
        {"timestep_spacing": "trailing"}, {"timestep_spacing": "leading"},
        {"prediction_type": "sample"}, {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "clip_sample": False},
        {"beta_schedule": "scaled_linear"}, {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_start": 0.002}, {"beta_end": 0.3}, {"num_train_timesteps": 100},
        LAST, {**LAST, "clip_sample": False}, {**LAST, "prediction_type": "sample"},
        {**ZERO, "timestep_spacing": "leading"},
    )),
    (DDPM, {"timestep_spacing": "linspace"}), (DDPM, {"beta_schedule": "sigmoid"}),
    (DDPM, {"variance_type": "fixed_small"}), (DDPM, {"variance_type": "fixed_small_log"}),
    (DDPM, {"variance_type": "fixed_large"}),
    (DDPM, {"variance_type": "fixed_large", "clip_sample": False}),
    (DDPM, {**LAST, "variance_type": "fixed_large"}),
]  # fmt: skip


@functools.cache
def digits() -> Path:
    """An MNIST network that the zoo once had, as a folder of diffusers."""
    place = Path(tempfile.mkdtemp(prefix="diptych-"))
    convert(str(OLD), place / "d")
    return place / "d"


def folder(path: Path, kind: str, change: dict[str, Any]) -> Path:
    """A copy with another scheduler: 20 timesteps, so that DDPM takes 20 steps."""
    made = path / "d"
    shutil.copytree(digits(), made)
    noise = {"_class_name": kind, "num_train_timesteps": 20, "beta_end": 0.5, **change}
    (made / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    return made


def pixels(x: Any) -> Any:
    """Levels of 255, not rounded to uint8, so that differences have a sign."""
    assert np.isfinite(x).all() and x.std() > 0.05
    return np.clip(np.rint((x + 1) * 127.5), 0, 255)


def distance(
    panels: tuple[Panel, ...], torch: Panel, made: Path, ours: Any = None, step: Any = None
) -> float:
    """The largest distance of these panels from diffusers, in levels of 255."""
    worst = 0.0
    for panel in panels:
        found = panel.call(exchange_jobs.recommended, panel.name, str(made), 3, ours or {})
        theirs = torch.call(exchange_jobs.by_diffusers, made, found, step or {})
        worst = max(worst, float(np.abs(pixels(theirs) - found["pixels"]).max()))
    return worst


@pytest.mark.torch
@pytest.mark.parametrize("kind, change", CASES, ids=lambda value: str(value)[:60])
def test_a_folder_is_drawn_as_diffusers_draws_it(
    panels: dict[str, Panel], tmp_path: Path, kind: str, change: dict[str, Any]
) -> None:
    torch = panels["torch"]
    assert distance((torch,), torch, folder(tmp_path, kind, change)) <= 1


@pytest.mark.torch
def test_a_clipped_folder_is_the_same_in_both_panels(
    both: tuple[Panel, Panel], tmp_path: Path
) -> None:
    assert distance(both, both[0], folder(tmp_path, DDIM, {})) <= 1


@pytest.mark.torch
def test_clip_alone_is_their_use_clipped_model_output(
    both: tuple[Panel, Panel], tmp_path: Path
) -> None:
    made, theirs = folder(tmp_path, DDIM, {}), {"use_clipped_model_output": True}
    assert distance(both, both[0], made, {"clip": True}, theirs) <= 1
    assert distance(both[:1], both[0], made, {"clip": True}) > 10, "the two are not the same"


@pytest.mark.torch
def test_predict_epsilon_is_the_old_word_for_sample(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    """diffusers ignores the key from 0.10 on, so its images are those of prediction_type."""
    made, torch = folder(tmp_path, DDPM, {"predict_epsilon": False}), panels["torch"]
    assert find_weights(str(made)).config.diffusion.objective == "x0"
    found = torch.call(exchange_jobs.recommended, "torch", str(made), 3, {})
    other = folder(tmp_path / "b", DDPM, {"prediction_type": "sample"})
    theirs = torch.call(exchange_jobs.by_diffusers, other, found, {})
    assert np.abs(pixels(theirs) - found["pixels"]).max() <= 1


def test_every_value_of_every_read_key_is_drawn_with() -> None:
    """The table and the cases cannot come apart."""
    for kind in (DDPM, DDIM):
        changes = [change for name, change in CASES if name == kind]
        drawn = {(key, str(value)) for change in changes for key, value in change.items()}
        for key, one in SCHEDULERS[kind].read.items():
            for value in one.known or ():
                implied = value == one.default or key == "predict_epsilon"
                assert implied or (key, str(value)) in drawn, (kind, key, value)


@pytest.mark.torch
def test_what_diffusers_writes_for_each_class_is_read(
    panels: dict[str, Panel], tmp_path: Path
) -> None:
    """So no class lacks a key in the table, and each has its own defaults."""
    panels["torch"].call(exchange_jobs.scheduler_files, list(SCHEDULERS), tmp_path)
    for name, kind in SCHEDULERS.items():
        file = tmp_path / name / "scheduler_config.json"
        tree = read_json(file, finite=False)
        keys = {key for key in tree if not key.startswith("_")}
        assert keys <= {*kind.read, *kind.left} <= keys | {"predict_epsilon"}, name
        found = read_scheduler(tree, file)
        bare = read_scheduler({"_class_name": name}, file)
        assert bare == found and (found.sampler is None) == bool(kind.left) == bool(found.note)


@pytest.mark.torch
def test_a_zero_terminal_snr_goes_out_and_comes_back(
    both: tuple[Panel, Panel], tmp_path: Path
) -> None:
    zoo = find_weights("zoo:mnist-torch")
    noise = zoo.config.diffusion.model_copy(update={"objective": "v", "zero_terminal_snr": True})
    config = zoo.config.model_copy(update={"diffusion": noise})
    write_torch(tmp_path / "bare.ckpt", dict(zoo.weights))
    convert(str(tmp_path / "bare.ckpt"), tmp_path / "d", config=config)
    found = find_weights(str(tmp_path / "d"))
    assert found.config.diffusion == noise
    assert found.sampler is not None and found.sampler["spacing"] == "trailing"
    theirs, first, kind = both[0].call(
        exchange_jobs.pipeline, "DDIMPipeline", tmp_path / "d", 2, 10
    )
    assert kind == "DDIMScheduler"
    for panel in both:
        ours = panel.call(exchange_jobs.sampled, panel.name, str(tmp_path / "d"), first, 10)
        assert np.abs(ours.astype(int) - theirs.reshape(ours.shape)).max() <= 1
