"""Requests that cannot be met are refused by name in one line; a hostile file runs nothing."""

from __future__ import annotations

import atexit
import functools
import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_exchange import CONFIG, GOOGLE, GOOGLE_NOISE, WEIGHTS

import panel_jobs
from diptych.backends.protocol import State
from diptych.config.load import to_yaml
from diptych.data.sources import download
from diptych.errors import MachineError, UserError
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.weights import pretrained
from diptych.weights.convert import convert, import_training
from diptych.weights.find import find_weights
from diptych.weights.formats.torch_write import write_torch
from diptych.weights.formats.training_list import read_training_list, training_list
from diptych.weights.inspect import inspect
from weight_files import as_zip

LITTLE = panel_jobs.small("model.ch_mult=[1]", "model.attn_resolutions=[]")


class Call:
    """Pickles as a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def line(error: Any) -> str:
    message = str(error.value)
    assert "\n" not in message and len(message) < 600
    return message


@functools.cache
def made_once() -> Path:
    """Our weights as a diffusers folder, for all tests of a session."""
    place = Path(tempfile.mkdtemp(prefix="diptych-"))
    atexit.register(shutil.rmtree, place)
    write_torch(place / "w.ckpt", dict(WEIGHTS))
    convert(str(place / "w.ckpt"), place / "made", "diffusers", config=CONFIG)
    return place


def folder(path: Path, network: dict[str, Any], noise: dict[str, Any] | None = None) -> Path:
    """A copy with other keys; its weights are links: replace them, do not write to them."""
    made = path / "made"
    shutil.copytree(made_once() / "made", made, copy_function=os.link)
    for file, values in (
        ("unet/config.json", {**GOOGLE, **network}),
        ("scheduler/scheduler_config.json", {**GOOGLE_NOISE, **(noise or {})}),
    ):
        (made / file).unlink()
        (made / file).write_text(json.dumps(values))
    return made


@pytest.mark.parametrize(
    "key, value",
    [
        ("freq_shift", 0),
        ("flip_sin_to_cos", True),
        ("downsample_padding", 1),
        ("attention_head_dim", 8),
        ("act_fn", "gelu"),
        ("norm_num_groups", 5),
        ("norm_num_groups", 64),
        ("norm_num_groups", None),
        ("attn_norm_num_groups", 16),
        ("class_embed_type", "timestep"),
        ("num_class_embeds", 10),
        ("center_input_sample", True),
        ("time_embedding_type", "fourier"),
        ("time_embedding_dim", 64),
        ("mid_block_scale_factor", 1.4),
        ("resnet_time_scale_shift", "scale_shift"),
        ("block_out_channels", [32, 48, 64]),
        ("down_block_types", ["DownBlock2D", "SkipDownBlock2D", "DownBlock2D"]),
        ("up_block_types", ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D"]),
        ("out_channels", 6),
        ("layers_per_block", "two"),
        ("sample_size", [16, 32, 8]),
        ("encoder_hid_dim", 4),
        ("_class_name", "UNet2DConditionModel"),
    ],
)
def test_another_network_of_diffusers_is_refused_by_its_key(
    tmp_path: Path, key: str, value: Any
) -> None:
    with pytest.raises(UserError) as error:
        find_weights(str(folder(tmp_path, {key: value})))
    said = line(error)
    words = {"_class_name": "UNet2DConditionModel", "layers_per_block": "no number",
             "sample_size": "no number"}  # fmt: skip
    blocks = ("down_block_types", "up_block_types")
    assert words.get(key, "lock" if key in blocks else key) in said and "config.json" in said


@pytest.mark.parametrize("groups, own", [(8, None), (8, 8), (1, None), (32, 32)])
def test_the_groups_of_diffusers_norms_are_honoured(
    tmp_path: Path, groups: int, own: int | None
) -> None:
    keys = {"norm_num_groups": groups, "attn_norm_num_groups": own}
    assert find_weights(str(folder(tmp_path, keys))).config.model.norm_groups == groups


@pytest.mark.parametrize(
    "change",
    ["model.norm_groups=8", "model.norm_eps=1e-5", "diffusion.objective=v", "model.num_classes=3"],
)
def test_no_official_training_is_written_of_settings_that_it_has_not(
    tmp_path: Path, change: str
) -> None:
    config, run = panel_jobs.small(change), tmp_path / "run"
    weights = initial_weights(make_plan(config), 0)
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(config))
    checkpoint.save(run, State(1, weights, weights, weights, weights), {}, 1)
    with pytest.raises(UserError, match=change.replace("1e-5", "1e-05")) as error:
        convert(str(run), tmp_path / "x.pth", "official-training")
    assert "safetensors" in line(error) and not (tmp_path / "x.pth").exists()
    convert(str(run), tmp_path / "x.safetensors")
    assert find_weights(str(tmp_path / "x.safetensors")).config == config


def test_diffusers_defaults_are_not_the_official_network(tmp_path: Path) -> None:
    made = folder(tmp_path, {})
    tree = {key: value for key, value in GOOGLE.items() if key != "freq_shift"}
    (made / "unet" / "config.json").write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"freq_shift is 0 \(diffusers' default\)"):
        find_weights(str(made))


@pytest.mark.parametrize(
    "noise, words",
    [
        ({"prediction_type": "flow"}, "prediction_type"),
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"beta_schedule": "laplace"}, "beta_schedule"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"thresholding": True, "sample_max_value": 2.0}, "sample_max_value"),
        ({"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"}, "timestep_spacing"),
        ({"clip_sample_range": 2.0}, "clip_sample_range"),
        ({"variance_type": "fixed_large_log"}, "variance_type is 'fixed_large_log'.*NaN"),
        ({"beta_schedule": "sigmoid", "_class_name": "DDIMScheduler"}, "beta_schedule"),
        ({"num_train_timesteps": 990, "_class_name": "DDIMScheduler"}, "num_train_timesteps"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps"),
        ({"predict_epsilon": False, "prediction_type": "epsilon"}, "predict_epsilon"),
        ({"predict_epsilon": False, "prediction_type": "v_prediction"}, "predict_epsilon"),
        ({"predict_epsilon": 1}, "predict_epsilon"),
        ({"clip_smaple": False}, "'clip_smaple' is not one .*did you mean 'clip_sample'"),
        ({"zzzz": 3}, "'zzzz' is not one of a scheduler"),
        ({"_class_name": "DDIMShceduler"}, "did you mean 'DDIMScheduler'"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "not known here"),
        ({"_class_name": None}, "not known here"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"_class_name": "HeunDiscreteScheduler", "predicton_type": "sample"}, "prediction_type"),
        ({"variance_type": "learned"}, "variance_type"),
        ({"_class_name": "DDIMScheduler", "set_alpha_to_one": False}, "set_alpha_to_one"),
        ({"_class_name": "DDIMScheduler", "steps_offset": 1}, "steps_offset"),
        ({"beta_end": 2.0}, "beta_end"),
    ],
)
def test_another_noise_or_scheduler_is_refused_by_its_key(
    tmp_path: Path, noise: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as error:
        find_weights(str(folder(tmp_path, {}, noise)))
    assert "scheduler_config.json: " in line(error)


def test_keys_of_other_classes_and_switched_off_ones_mean_nothing(tmp_path: Path) -> None:
    """diffusers ignores them."""
    noise = {"set_alpha_to_one": False, "skip_prk_steps": True, "solver_order": 3,
             "tensor_format": "pt", "sample_max_value": 7.0, "clip_sample": False,
             "clip_sample_range": 9.0, "timestep_spacing": "trailing",
             "steps_offset": 1}  # fmt: skip
    found = find_weights(str(folder(tmp_path, {}, noise)))
    assert found.sampler == {"solver": "ddpm-large", "spacing": "trailing", "clip": False}


def test_a_class_whose_sampling_is_not_taken_over_says_so(tmp_path: Path) -> None:
    noise = {"_class_name": "HeunDiscreteScheduler"}
    made = folder(tmp_path, {}, noise)
    (made / "scheduler" / "scheduler_config.json").write_text(json.dumps(noise))
    found = find_weights(str(made))
    assert found.sampler is None and "HeunDiscreteScheduler" in str(found.note)
    assert inspect(str(made))["note"] == found.note
    diffusion = found.config.diffusion  # this class has defaults of its own
    assert (diffusion.beta_start, diffusion.beta_end) == (0.00085, 0.012)


def test_a_scheduler_that_differs_is_honoured(tmp_path: Path) -> None:
    noise = {"beta_schedule": "scaled_linear", "beta_end": 0.012, "num_train_timesteps": 500,
             "timestep_spacing": "trailing", "_class_name": "DDIMScheduler"}  # fmt: skip
    found = find_weights(str(folder(tmp_path, {}, noise)))
    diffusion = found.config.diffusion
    assert (diffusion.schedule, diffusion.beta_end, diffusion.timesteps) == ("quad", 0.012, 500)
    assert found.sampler == {"solver": "ddim", "clip": "image", "spacing": "trailing"}


def test_linspace_holds_where_every_step_is_taken_and_is_said(tmp_path: Path) -> None:
    """With `--steps` alone the timesteps are other ones than diffusers': never in silence."""
    noise = {"timestep_spacing": "linspace", "_class_name": "DDPMScheduler"}
    found = find_weights(str(folder(tmp_path, {}, noise)))
    assert found.sampler is not None and found.sampler["spacing"] == "uniform"
    assert found.note is not None and "with --steps they are those of spacing uniform" in found.note


def test_weights_of_another_size_or_name_are_refused(tmp_path: Path) -> None:
    made = folder(tmp_path, {"block_out_channels": [32, 64, 128]})
    with pytest.raises(UserError, match=r"'down.2.block.0.norm2.weight' is \(64,\)|is \(64"):
        find_weights(str(made))
    path = tmp_path / "w.ckpt"
    with pytest.raises(UserError, match="needs the config"):
        find_weights(str(made_once() / "w.ckpt"))
    extra = {**WEIGHTS, "head.weight": WEIGHTS["conv_in.weight"]}
    write_torch(path, extra)
    with pytest.raises(UserError, match=r"'head\.weight' is not in this config's network"):
        find_weights(str(path), CONFIG)
    write_torch(path, {"fc.weight": WEIGHTS["conv_in.weight"]})
    with pytest.raises(UserError, match="not named as in the official"):
        find_weights(str(path), CONFIG)
    assert inspect(str(path))["network"] is None  # yet what it is can be told


@pytest.mark.parametrize("where", ["file", "diffusers", "training", "inspect", "convert"])
def test_a_hostile_pickle_runs_nothing_on_any_path(tmp_path: Path, where: str) -> None:
    marker, path = tmp_path / "ran", tmp_path / "evil.ckpt"
    content = as_zip(pickle.dumps({"conv_in.weight": Call(marker)}, 2))
    if where == "diffusers":
        made = folder(tmp_path, {})
        (made / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        (made / "unet" / "diffusion_pytorch_model.bin").write_bytes(content)
    path.write_bytes(content)
    tried = {
        "file": lambda: find_weights(str(path), CONFIG),
        "diffusers": lambda: find_weights(str(tmp_path / "made")),
        "training": lambda: import_training(path, tmp_path / "run", CONFIG),
        "inspect": lambda: inspect(str(path)),
        "convert": lambda: convert(str(path), tmp_path / "out.pkl", config=CONFIG),
    }
    with pytest.raises(UserError, match="nothing of the file was executed") as error:
        tried[where]()
    line(error)
    assert not marker.exists() and not (tmp_path / "run").exists()


def test_a_truncated_file_is_one_line_on_any_path(tmp_path: Path) -> None:
    made = folder(tmp_path, {})
    weights = made / "unet" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(content[:-100])
    path = tmp_path / "w.ckpt"
    path.write_bytes((made_once() / "w.ckpt").read_bytes()[:-100])
    for source, config in ((made, None), (path, CONFIG)):
        with pytest.raises(UserError, match="truncated") as error:
            find_weights(str(source), config)
        line(error)
    weights.unlink()
    with pytest.raises(UserError, match=r"holds none of diffusion_pytorch_model\.safetensors"):
        find_weights(str(made))


@pytest.mark.parametrize(
    "changes, words",
    [
        (["model.ch_mult=[2,2]"], "ch_mult begins with 2"),
        (["model.resamp_with_conv=false"], "resamp_with_conv"),
        (["diffusion.schedule=jsd"], "no schedule 'jsd'"),
        (["data.rescaled=false"], "data.rescaled"),
        (["data.dequantization=uniform"], "data.dequantization"),
        (["model.num_classes=10"], "model.num_classes"),
    ],
)
def test_what_diffusers_cannot_express_is_not_written(
    tmp_path: Path, changes: list[str], words: str
) -> None:
    config = panel_jobs.small(*changes)
    write_torch(tmp_path / "w.ckpt", dict(initial_weights(make_plan(config), 0)))
    with pytest.raises(UserError, match=words):
        convert(str(tmp_path / "w.ckpt"), tmp_path / "out", config=config)
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path, out = tmp_path / "w.ckpt", tmp_path / "out.pkl"
    write_torch(path, dict(WEIGHTS))
    out.write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        convert(str(path), out, config=CONFIG)
    assert out.read_text() == "mine"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(UserError, match="not one of diffusers"):
        convert(str(path), tmp_path / "mine", config=CONFIG, overwrite=True)
    with pytest.raises(UserError, match="into which form"):
        convert(str(path), tmp_path / "out.weights", config=CONFIG)
    with pytest.raises(UserError, match="did you mean 'diffusers'"):
        convert(str(path), tmp_path / "x", "difusers", config=CONFIG)
    with pytest.raises(UserError, match="is not a run"):
        convert(str(path), tmp_path / "x.pth", "official-training")


def test_a_folder_in_a_file_s_place_is_named_so(tmp_path: Path) -> None:
    for to in ("official", "safetensors"):
        with pytest.raises(UserError, match=f"is a folder, and --to {to} writes a file"):
            convert(str(made_once() / "made"), made_once() / "made", to, overwrite=True)


def test_a_training_takes_neither_raw_nor_another_config(tmp_path: Path) -> None:
    for to in ("run", "official-training"):
        with pytest.raises(UserError, match="leave out --raw"):
            convert("run", tmp_path / "out", to, raw=True)
    with pytest.raises(UserError, match="leave out --config"):
        convert("run", tmp_path / "out", "official-training", config=CONFIG)


def test_the_zoo_holds_no_raw_weights() -> None:
    with pytest.raises(UserError, match="zoo:mnist-torch: holds moving averages alone"):
        find_weights("zoo:mnist-torch", raw=True)


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_part_of_a_pipeline_is_named_in_its_folder(tmp_path: Path, part: str) -> None:
    shutil.copytree(made_once() / "made", tmp_path / "made")
    shutil.rmtree((tmp_path / "made" / part).parent)
    with pytest.raises(UserError, match=f"made/{part}: not found"):
        find_weights(str(tmp_path / "made"))


def planted(fault: str) -> list[Any]:
    """An official training list with one fault."""
    from diptych.backends.protocol import State

    weights = initial_weights(make_plan(LITTLE), 0)
    tree = training_list(State(5, weights, weights, weights, weights), LITTLE, 2)
    model, optimizer, _, _, ema = tree
    if fault == "no ema":
        return tree[:4]
    if fault == "weight":
        del model["module.conv_in.weight"]
    elif fault == "average":
        ema["conv_in.bias"] = np.zeros(3, np.float32)
    elif fault == "moment":
        optimizer["state"][0]["exp_avg"] = np.zeros((2, 2), np.float32)
    elif fault == "swapped":
        optimizer["param_groups"][0]["params"].reverse()
    elif fault == "missing":
        del optimizer["state"][3]
    elif fault == "steps":
        optimizer["state"][1]["step"] = np.array(4, np.float32)
    elif fault == "amsgrad":
        optimizer["param_groups"][0]["amsgrad"] = True
    elif fault == "step":
        tree[3] = -1
    return tree


@pytest.mark.parametrize(
    "fault, words",
    [
        ("no ema", "holds no EMA"),
        ("weight", "model: weight 'conv_in.weight' is missing"),
        ("average", r"ema: weight 'conv_in.bias' is \(3,\)"),
        ("moment", "optimizer: weight 'temb.dense.0.weight'"),
        ("swapped", "optimizer: weight"),
        ("missing", "parameters, the network has"),
        ("steps", "Adam has taken 4 steps"),
        ("amsgrad", "AMSGrad"),
        ("step", "its step is"),
    ],
)
def test_a_training_list_is_taken_whole_or_not_at_all(
    tmp_path: Path, fault: str, words: str
) -> None:
    path = tmp_path / "ckpt.pth"
    write_torch(path, planted(""))
    assert read_training_list(path, make_plan(LITTLE)).step == 5
    write_torch(path, planted(fault))
    with pytest.raises(UserError, match=words) as error:
        import_training(path, tmp_path / "run", LITTLE)
    line(error)
    assert not (tmp_path / "run").exists()


def unserved(*_: object) -> None:
    raise download.Unusable("nobody answers")


def test_pretrained_weights_are_looked_for_and_their_place_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(download, "retrieve", unserved)
    with pytest.raises(UserError) as error:
        pretrained.fetch("ema_cifar10")
    said = line(error)
    place = tmp_path / "diptych" / "pretrained"
    for word in ("https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1", str(place),
                 "ema_cifar10.ckpt", "1fa350b952534ae442b1d5235cce5cd3"):  # fmt: skip
        assert word in said
    with pytest.raises(UserError, match="did you mean 'ema_cifar10'"):
        find_weights("pretrained:ema_cifar")
    (place / "ema_cifar10.ckpt").write_bytes(b"something else")
    with pytest.raises(UserError, match="its md5 is"):
        find_weights("pretrained:ema_cifar10")


def test_a_pretrained_file_in_the_cache_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib
    from dataclasses import replace

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    known = pretrained.PRETRAINED["cifar10"]
    path = tmp_path / "diffusion_models_converted" / known.place
    path.parent.mkdir(parents=True)
    write_torch(path, dict(WEIGHTS))
    entry = replace(known, md5=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(pretrained.PRETRAINED, "cifar10", entry)
    found = find_weights("pretrained:cifar10", CONFIG)
    assert found.kind == "raw" and not entry.ema
    with pytest.raises(UserError, match="needs"):  # a small network is not CIFAR-10's
        find_weights("pretrained:cifar10")


def test_a_download_that_fails_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import requests

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def unreachable(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(download, "go_on", unreachable)
    with pytest.raises((UserError, MachineError), match="Put the file from"):
        pretrained.fetch("ema_lsun_church")
