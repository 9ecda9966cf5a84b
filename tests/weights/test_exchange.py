"""Import and export of checkpoints: every format keeps the bits, and its own library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

import exchange_jobs
import panel_jobs
from conftest import Panel
from diptych.backends.protocol import State
from diptych.config.load import Config, load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.types import Weights
from diptych.weights import pretrained
from diptych.weights.convert import convert
from diptych.weights.find import find_weights
from diptych.weights.formats import read_config
from diptych.weights.formats.layouts import layout_of, to_diffusers, to_official
from diptych.weights.formats.torch_write import write_torch
from diptych.weights.formats.training_list import training_list
from diptych.weights.inspect import inspect

CONFIG = panel_jobs.small(
    "data.channels=3", "data.image_size=16", "model.attn_resolutions=[8]", "model.ch_mult=[1,2,2]",
    "model.num_res_blocks=2", "model.dropout=0.1",
)  # fmt: skip
WEIGHTS = initial_weights(make_plan(CONFIG), 3)
X, T = panel_jobs.noise_images(CONFIG, 4), np.array([0, 1, 500, 999])
# The keys of google/ddpm-cifar10-32's config.json, with small sizes.
GOOGLE = {
    "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [32, 64, 64],
    "center_input_sample": False, "down_block_types": ["DownBlock2D", "AttnDownBlock2D",
    "DownBlock2D"], "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
    "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06,
    "norm_num_groups": 32, "out_channels": 3, "sample_size": 16,
    "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "AttnUpBlock2D",
    "UpBlock2D"],
}  # fmt: skip
GOOGLE_NOISE = {
    "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02,
    "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": True,
    "num_train_timesteps": 1000, "trained_betas": None, "variance_type": "fixed_large",
}  # fmt: skip


def equal(found: Weights, expected: Weights = WEIGHTS) -> None:
    """The same names and bits."""
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == np.float32 and found[name].shape == array.shape


@pytest.fixture(name="official")
def official_file(tmp_path: Path) -> Path:
    path = tmp_path / "official.ckpt"
    write_torch(path, dict(WEIGHTS))
    return path


@pytest.mark.parametrize(
    "name, kind",
    [("a.ckpt", "torch-zip/state-dict"), ("a.pkl", "pickle/state-dict"), ("a", "diffusers"),
     ("a.safetensors", "safetensors/state-dict")],
)  # fmt: skip
def test_every_form_gives_the_same_bits_back(
    official: Path, tmp_path: Path, name: str, kind: str
) -> None:
    out, back = tmp_path / name, tmp_path / "back.ckpt"
    convert(str(official), out, config=CONFIG)
    said = inspect(str(out))
    assert kind.partition("/")[0] in said["what"].replace("jittor", "pickle")
    assert said["parameters"] == sum(array.size for array in WEIGHTS.values())
    tells = kind.startswith(("diffusers", "safetensors"))
    found = find_weights(str(out), None if tells else CONFIG)
    equal(found.weights)
    assert found.config.model == CONFIG.model and found.config.diffusion == CONFIG.diffusion
    convert(str(out), back, "official", config=CONFIG)
    assert back.read_bytes() == official.read_bytes()


@pytest.mark.torch
def test_torch_reads_our_official_file_without_executing(panels: Any, official: Path) -> None:
    equal(panels["torch"].call(exchange_jobs.torch_loads, official))


@pytest.mark.jittor
def test_jittor_reads_our_pickle(panels: Any, official: Path, tmp_path: Path) -> None:
    convert(str(official), tmp_path / "j.pkl", config=CONFIG)
    call = panels["jittor"].call
    loaded, network = call(exchange_jobs.jittor_loads, tmp_path / "j.pkl", CONFIG)
    equal(loaded)
    equal(network)


@pytest.mark.torch
@pytest.mark.parametrize("norm_eps, norm_groups", [(1e-6, 32), (1e-5, 32), (1e-6, 8), (1e-4, 1)])
def test_diffusers_network_is_the_same_function_in_both_panels(
    both: tuple[Panel, Panel], official: Path, tmp_path: Path, norm_eps: float, norm_groups: int
) -> None:
    norms = {"norm_eps": norm_eps, "norm_groups": norm_groups}
    model = CONFIG.model.model_copy(update=norms)
    # Faint features: there the eps of a norm shows.
    weights = {n: a * (1e-3 if n.startswith("conv_in") else 1) for n, a in WEIGHTS.items()}
    write_torch(official, weights)
    convert(str(official), tmp_path / "d", config=CONFIG.model_copy(update={"model": model}))
    theirs = both[0].call(exchange_jobs.in_diffusers, tmp_path / "d", X, T)
    for panel in both:
        ours = panel.call(exchange_jobs.predicted, panel.name, str(tmp_path / "d"), X, T)
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
    read = json.loads((tmp_path / "d" / "unet" / "config.json").read_text())
    assert (read["norm_eps"], read["norm_num_groups"]) == (norm_eps, norm_groups)
    if norms != {"norm_eps": 1e-6, "norm_groups": 32}:  # had a key been lost, it would show
        plain = both[0].call(exchange_jobs.predicted, "torch", str(official), X, T, CONFIG)
        assert np.abs(plain - theirs).max() > 1e-3 * np.abs(theirs).max()


@pytest.mark.torch
@pytest.mark.parametrize("objective", ["eps", "v"])
def test_pipelines_of_diffusers_draw_our_images_from_our_noise(
    both: tuple[Panel, Panel], tmp_path: Path, objective: str
) -> None:
    found = find_weights("zoo:mnist-torch")
    noise_of = found.config.diffusion.model_copy(update={"objective": objective})
    config = found.config.model_copy(update={"diffusion": noise_of})
    write_torch(tmp_path / "bare.ckpt", dict(found.weights))
    convert(str(tmp_path / "bare.ckpt"), tmp_path / "d", config=config)
    assert find_weights(str(tmp_path / "d")).config.diffusion == noise_of
    call = both[0].call
    theirs, noise, kind = call(exchange_jobs.pipeline, "DDIMPipeline", tmp_path / "d", 4, 10)
    assert kind == "DDIMScheduler" and 5 < theirs.std() < 120
    for panel in both:
        ours = panel.call(exchange_jobs.sampled, panel.name, str(tmp_path / "d"), noise, 10)
        off = np.abs(ours.astype(int) - theirs.reshape(ours.shape))
        assert off.max() <= 1 and (off > 0).mean() < 0.01
    assert call(exchange_jobs.pipeline, "DDPMPipeline", tmp_path / "d", 1, 5)[2] == "DDPMScheduler"


@pytest.mark.torch
@pytest.mark.parametrize("size", ["8x16", "16x8"])
def test_images_that_are_no_squares_go_to_diffusers_and_back(
    both: tuple[Panel, Panel], tmp_path: Path, size: str
) -> None:
    """Its network gives our output and its pipeline draws our images, in this shape."""
    data = load_config("tiny", ["data.channels=3", f"data.image_size={size}"]).data
    model = CONFIG.model.model_copy(update={"attn_resolutions": (4,), "dropout": 0.0})
    config = CONFIG.model_copy(update={"data": data, "model": model})
    write_torch(tmp_path / "o.ckpt", dict(WEIGHTS))
    convert(str(tmp_path / "o.ckpt"), tmp_path / "d", config=config)
    held = json.loads((tmp_path / "d" / "unet" / "config.json").read_text())
    assert held["sample_size"] == list(data.sides)
    assert f"images of {size}" in (tmp_path / "d" / "README.md").read_text()
    found = find_weights(str(tmp_path / "d"))
    assert found.config.data.image_size == data.image_size and found.config.model == model
    equal(found.weights)
    x = panel_jobs.noise_images(config, 4)
    theirs = both[0].call(exchange_jobs.in_diffusers, tmp_path / "d", x, T)
    images, noise, _ = both[0].call(exchange_jobs.pipeline, "DDIMPipeline", tmp_path / "d", 2, 3)
    assert images.shape[1:3] == data.sides and noise.shape[1:] == data.shape
    for panel in both:
        ours = panel.call(exchange_jobs.predicted, panel.name, str(tmp_path / "d"), x, T)
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()
        drawn = panel.call(exchange_jobs.sampled, panel.name, str(tmp_path / "d"), noise, 3)
        assert np.abs(drawn.astype(int) - images).max() <= 1


@pytest.mark.torch
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("safe", [False, True])
def test_the_layout_of_google_ddpm_is_read(
    panels: Any, tmp_path: Path, old: bool, safe: bool
) -> None:
    theirs = panels["torch"].call(exchange_jobs.diffusers_weights, GOOGLE, tmp_path, safe)
    (tmp_path / "scheduler_config.json").write_text(json.dumps(GOOGLE_NOISE))
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    if old:  # names and shapes of attention as the published files have them
        for file in tmp_path.glob("diffusion_pytorch_model.*"):
            file.unlink()
        write_torch(
            tmp_path / "diffusion_pytorch_model.bin", {old_name(n): a for n, a in theirs.items()}
        )
    found = find_weights(str(tmp_path))
    assert found.config.model == CONFIG.model.model_copy(update={"dropout": 0.0})
    assert found.config.data.image_size == 16
    assert found.sampler == {"solver": "ddpm-large", "spacing": "uniform", "clip": True}
    equal(to_diffusers(found.weights), theirs)
    said = inspect(str(tmp_path))
    assert (said["what"], said["layout"]) == ("diffusers DDPMPipeline", "diffusers")


def old_name(name: str) -> str:
    """diffusers' names of attention up to 0.16."""
    for new, old in (
        ("to_q", "query"),
        ("to_k", "key"),
        ("to_v", "value"),
        ("to_out.0", "proj_attn"),
    ):
        name = name.replace(f".{new}.", f".{old}.")
    return name


def in_ddpm_torch(weights: Weights, config: Config) -> Weights:
    """The module tree of tqch/ddpm-torch, written down level by level."""
    found: Weights = {}
    leaves = {"temb_proj": "fc", "nin_shortcut": "skip", "proj_out": "project_out"}

    def put(ours: str, theirs: str) -> None:
        for name in [n for n in weights if n.startswith(f"{ours}.")]:
            leaf, kind = name.removeprefix(f"{ours}.").rpartition(".")[::2]
            if leaf in ("q", "k", "v"):
                parts = [weights[f"{ours}.{part}.{kind}"] for part in "qkv"]
                found[f"{theirs}.project_in.{kind}"] = np.concatenate(parts)
            else:
                tail = f".{leaves.get(leaf, leaf)}" if leaf else ""
                found[f"{theirs}{tail}.{kind}"] = weights[name]

    for ours, theirs in (("temb.dense.0", "embed.0"), ("temb.dense.1", "embed.2"),
                         ("conv_in", "in_conv"), ("norm_out", "out_conv.0"),
                         ("conv_out", "out_conv.2"), ("mid.block_1", "middle.0"),
                         ("mid.attn_1", "middle.1"), ("mid.block_2", "middle.2")):  # fmt: skip
        put(ours, theirs)
    for path, extra in (("down", 0), ("up", 1)):
        for i in range(len(config.model.ch_mult)):
            count = config.model.num_res_blocks + extra
            attends = any(name.startswith(f"{path}.{i}.attn.") for name in weights)
            for j in range(count):
                module = f"{path}samples.level_{i}.{j}"
                put(f"{path}.{i}.block.{j}", f"{module}.0" if attends else module)
                put(f"{path}.{i}.attn.{j}", f"{module}.1")
            put(f"{path}.{i}.{path}sample.conv", f"{path}samples.level_{i}.{count}.1")
    return found


@pytest.mark.parametrize("prefix", ["", "module."])
def test_ddpm_torch_is_read_with_its_ema_and_its_eps(tmp_path: Path, prefix: str) -> None:
    theirs = in_ddpm_torch(WEIGHTS, CONFIG)
    assert len(theirs) < len(WEIGHTS) and layout_of(theirs) == "ddpm-torch"
    equal(to_official(theirs, Path("x.pt"))[1])
    model = {f"{prefix}{name}": array for name, array in theirs.items()}
    halved = {name: array * np.float32(0.5) for name, array in theirs.items()}
    tree = {
        "model": model, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3,
        "ema": {"decay": 0.9999, "shadow": halved, "num_updates": 7}, "scheduler": None,
    }  # fmt: skip
    write_torch(tmp_path / "ddpm_cifar10.pt", tree)
    for raw, factor in ((True, 1), (False, 0.5)):
        own = CONFIG.model_copy(
            update={"model": CONFIG.model.model_copy(update={"norm_groups": 8})}
        )
        found = find_weights(str(tmp_path / "ddpm_cifar10.pt"), own, raw)
        assert found.kind == ("raw" if raw else "ema")
        assert (found.config.model.norm_eps, found.config.model.norm_groups) == (1e-5, 32)
        equal(found.weights, {n: a * np.float32(factor) for n, a in WEIGHTS.items()})


@pytest.mark.torch
def test_torchs_adam_goes_on_from_our_training_list(panels: Any, tmp_path: Path) -> None:
    """By the formula: had a moment come to another weight, or the step been lost, it would show."""
    rng, step, gradient = np.random.default_rng(0), 7, 0.3
    m, v = (
        {n: rng.uniform(0.1, 1, a.shape).astype(np.float32) for n, a in WEIGHTS.items()}
        for _ in range(2)
    )
    write_torch(
        tmp_path / "ckpt.pth", training_list(State(step, WEIGHTS, WEIGHTS, m, v), CONFIG, 2)
    )
    call = panels["torch"].call
    found, settings = call(exchange_jobs.adam_goes_on, tmp_path / "ckpt.pth", gradient)
    train = CONFIG.train
    assert settings == {"lr": train.lr, "betas": (train.beta1, train.beta2), "eps": train.eps}
    for name, array in WEIGHTS.items():
        first = train.beta1 * m[name] + (1 - train.beta1) * gradient
        second = train.beta2 * v[name] + (1 - train.beta2) * gradient**2
        root = np.sqrt(second / (1 - train.beta2 ** (step + 1))) + train.eps
        moved = array - train.lr * first / (1 - train.beta1 ** (step + 1)) / root
        np.testing.assert_allclose(found[f"module.{name}"], moved, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.torch
def test_the_official_cifar10_network_is_one_function_in_both_panels(
    both: tuple[Panel, Panel], tmp_path: Path
) -> None:
    """All 35.7 million parameters, as a user loads them: an official file and an official yml."""
    path, config = tmp_path / "model.ckpt", load_config("cifar10")
    weights = initial_weights(make_plan(config), 0)
    assert sum(array.size for array in weights.values()) == 35_746_307
    write_torch(path, dict(weights))
    yml = read_config(str(pretrained.official_config("cifar10.yml")))
    convert(str(path), tmp_path / "d", config=yml)
    x, t = panel_jobs.noise_images(config, 2), np.array([10, 999])
    theirs = both[0].call(exchange_jobs.in_diffusers, tmp_path / "d", x, t)
    for panel in both:
        ours = panel.call(exchange_jobs.predicted, panel.name, str(path), x, t, yml)
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_safetensors_carry_their_config_and_say_that_they_are_ema(tmp_path: Path) -> None:
    out, zoo = tmp_path / "mnist.safetensors", find_weights("zoo:mnist-torch")
    convert("zoo:mnist-torch", out)
    found = find_weights(str(out))
    assert found.kind == inspect(str(out))["weights"] == "ema" and found.config == zoo.config
    equal(found.weights, zoo.weights)


def test_converting_twice_gives_the_same_file(tmp_path: Path) -> None:
    """The library orders the metadata by a hash that differs in every call: one in 3! agrees."""
    written = set()
    for i in range(8):
        convert("zoo:mnist-torch", tmp_path / f"{i}.safetensors")
        written.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(written) == 1
    with safe_open(str(tmp_path / "0.safetensors"), "numpy") as file:
        assert len(file.metadata()) == 3
        theirs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    equal(theirs, find_weights("zoo:mnist-torch").weights)
