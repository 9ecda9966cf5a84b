"""Configs of the official DDIM repository: every key is honoured or refused by name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.config.load import load_config, to_yaml
from diptych.errors import UserError
from diptych.weights.formats import from_official, is_official, read_config

Tree = dict[str, Any]

# The keys and values of the official files.
FORM = """
data: {{dataset: {dataset}, image_size: {size}, channels: 3, logit_transform: false,
  uniform_dequantization: false, gaussian_dequantization: false, random_flip: true, rescaled: true,
  num_workers: {workers}}}
model: {{type: "simple", in_channels: 3, out_ch: 3, ch: 128, ch_mult: {mult}, num_res_blocks: 2,
  attn_resolutions: [16, ], dropout: {dropout}, var_type: {var}, ema_rate: {ema}, ema: True,
  resamp_with_conv: True}}
diffusion: {{beta_schedule: linear, beta_start: 0.0001, beta_end: 0.02,
  num_diffusion_timesteps: 1000}}
training: {{batch_size: {batch}, n_epochs: 10000, n_iters: 5000000, snapshot_freq: 5000,
  validation_freq: {validation}}}
sampling: {{batch_size: {sample}, last_only: True}}
optim: {{weight_decay: 0.000, optimizer: "Adam", lr: {lr}, beta1: 0.9, amsgrad: false,
  eps: 0.00000001{clip}}}
"""
SMALL = {"dropout": 0.1, "var": "fixedlarge", "ema": 0.9999, "batch": 128, "lr": "0.0002",
         "workers": 4, "clip": ", grad_clip: 1.0"}  # fmt: skip
LARGE = {"size": 256, "mult": [1, 1, 2, 2, 4, 4], "dropout": 0.0, "var": "fixedsmall", "ema": 0.999,
         "batch": 64, "lr": "0.00002", "workers": 32, "clip": "", "validation": 2000,
         "sample": 32}  # fmt: skip
FILES: dict[str, Tree] = {
    "cifar10": {**SMALL, "dataset": "CIFAR10", "size": 32, "mult": [1, 2, 2, 2],
                "validation": 2000, "sample": 64},
    "celeba": {**SMALL, "dataset": "CELEBA", "size": 64, "mult": [1, 2, 2, 2, 4],
               "validation": 20000, "sample": 32},
    "bedroom": {**LARGE, "dataset": "LSUN, category: bedroom"},
    "church": {**LARGE, "dataset": "LSUN, category: church_outdoor"},
}  # fmt: skip


def official(name: str) -> Tree:
    tree: Tree = yaml.safe_load(FORM.format(**FILES[name]))
    return tree


def changed(key: str, value: object = ..., name: str = "cifar10") -> Tree:
    """An official config with one key set, or without it."""
    tree = copy.deepcopy(official(name))
    section, _, last = key.partition(".")
    if value is ...:
        del tree[section][last]
    else:
        tree.setdefault(section, {})[last] = value
    return tree


@pytest.mark.parametrize("name", FILES)
def test_the_official_files_are_read_as_they_are(tmp_path: Path, name: str) -> None:
    facts, path = FILES[name], tmp_path / f"{name}.yml"
    path.write_text(FORM.format(**facts))
    config = read_config(str(path))
    assert config == from_official(official(name), name)
    assert (config.data.image_size, config.data.channels) == (facts["size"], 3)
    assert config.data.random_flip and config.data.split == "train"
    assert config.model.model_dump() == {
        "ch": 128,
        "ch_mult": tuple(facts["mult"]),
        "num_res_blocks": 2,
        "attn_resolutions": (16,),
        "dropout": facts["dropout"],
        "resamp_with_conv": True,
        "num_classes": 0,
        "norm_eps": 1e-6,
        "norm_groups": 32,
    }
    assert config.diffusion.model_dump() == {
        "schedule": "linear",
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "timesteps": 1000,
        "objective": "eps",
        "zero_terminal_snr": False,
    }
    train = config.train
    assert (train.batch_size, train.epochs, train.checkpoint_every) == (facts["batch"], 10000, 5000)
    assert (train.lr, train.beta1, train.beta2, train.eps) == (float(facts["lr"]), 0.9, 0.999, 1e-8)
    assert (train.ema_rate, train.loss, train.warmup_steps) == (facts["ema"], "sum", 0)
    assert train.grad_clip == (1.0 if facts["clip"] else None)  # without the key: never clipped
    assert from_official(official(name), name, for_training=False) == config


def test_data_sets_have_our_names() -> None:
    sources = [from_official(official(name), name).data.source for name in FILES]
    assert sources == ["cifar10", "celeba", "lsun_bedroom", "lsun_church_outdoor"]


@pytest.mark.parametrize(
    "key, value",
    [
        ("data.logit_transform", True),  # beside rescaled
        ("data.rescaled", "yes"),
        ("model.type", "bayesian"),
        ("model.in_channels", 1),
        ("model.out_ch", 6),
        ("model.var_type", "learned"),
        ("model.ch", 100),
        ("model.ch_mult", [1, 0]),
        ("model.resamp_with_conv", "yes"),
        ("data.image_size", 30),
        ("data.channels", {"a": 1}),
        ("diffusion.beta_schedule", "triangular"),
        ("diffusion.num_diffusion_timesteps", 0),
        ("diffusion.beta_start", "small"),
        ("data.num_classes", 10),
        ("model.num_head", 4),
        ("runner.name", "x"),
    ],
)
@pytest.mark.parametrize("for_training", [True, False])
def test_what_changes_the_images_is_refused_by_name(
    key: str, value: object, for_training: bool
) -> None:
    with pytest.raises(UserError) as error:
        from_official(changed(key, value), "my.yml", for_training=for_training)
    message = str(error.value)
    assert message.startswith("my.yml: ") and "\n" not in message
    assert ("runner" if key.startswith("runner") else key.split(".")[1]) in message


@pytest.mark.parametrize(
    "key, value",
    [
        ("data.uniform_dequantization", 1),
        ("data.gaussian_dequantization", "on"),
        ("data.dataset", "IMAGENET"),
        ("data.category", "bedroom"),
        ("data.random_flip", 3),
        ("model.dropout", 1.5),
        ("model.ema", False),
        ("model.ema_rate", 2.0),
        ("training.batch_size", 0),
        ("training.n_epochs", "many"),
        ("training.snapshot_freq", 0),
        ("training.log_step", 20),
        ("optim.weight_decay", 0.01),
        ("optim.optimizer", "SGD"),
        ("optim.amsgrad", True),
        ("optim.lr", -1.0),
        ("optim.beta1", 1.0),
        ("optim.eps", 0.0),
        ("optim.grad_clip", 0.0),
    ],
)
def test_what_only_training_needs_is_refused_there_and_left_when_sampling(
    key: str, value: object
) -> None:
    with pytest.raises(UserError) as error:
        from_official(changed(key, value), "my.yml")
    assert str(error.value).startswith("my.yml: ") and key in str(error.value)
    config = from_official(changed(key, value), "my.yml", for_training=False)
    plain = from_official(official("cifar10"), "my.yml")
    kept = {"ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resamp_with_conv"}
    assert config.model.model_dump(include=kept) == plain.model.model_dump(include=kept)
    assert config.diffusion == plain.diffusion


def test_the_transforms_are_honoured() -> None:
    plain = from_official(official("cifar10"), "x").data
    assert (plain.rescaled, plain.logit_transform, plain.dequantization) == (True, False, "none")
    for kind in ("uniform", "gaussian"):
        tree = changed(f"data.{kind}_dequantization", True)
        assert from_official(tree, "x").data.dequantization == kind
    # Samples need what decides on their pixels, which gaussian noise does not.
    assert from_official(tree, "x", for_training=False).data.dequantization == "none"
    tree = changed("data.uniform_dequantization", True)
    assert from_official(tree, "x", for_training=False).data.dequantization == "uniform"
    tree["data"]["gaussian_dequantization"] = True
    with pytest.raises(UserError, match="are both on"):
        from_official(tree, "x")
    tree = changed("data.logit_transform", True)
    tree["data"]["rescaled"] = False
    logit = from_official(tree, "x").data
    assert (logit.rescaled, logit.logit_transform) == (False, True)


NO_KEY_NEEDED = {"num_workers", "var_type", "n_iters", "validation_freq", "grad_clip"}


@pytest.mark.parametrize(
    "key", [f"{s}.{k}" for s, values in official("cifar10").items() for k in values]
)
def test_a_missing_key_is_named_or_not_needed(key: str) -> None:
    tree = changed(key)
    if key.startswith("sampling.") or key.split(".")[1] in NO_KEY_NEEDED:
        from_official(tree, "my.yml")
    else:
        with pytest.raises(UserError, match=f"my.yml: key '{key}' is missing"):
            from_official(tree, "my.yml")


def test_lsun_needs_its_category() -> None:
    with pytest.raises(UserError, match=r"data\.category is missing"):
        from_official(changed("data.category", name="bedroom"), "my.yml")


def test_weights_need_no_training_sections() -> None:
    tree = official("church")
    for section in ("training", "optim", "sampling"):
        del tree[section]
    for key in ("ema", "ema_rate", "dropout"):
        del tree["model"][key]
    config = from_official(tree, "my.yml", for_training=False)
    assert (
        config.model.ch_mult == (1, 1, 2, 2, 4, 4) and config.data.source == "lsun_church_outdoor"
    )


def test_the_two_forms_are_told_apart(tmp_path: Path) -> None:
    assert all(is_official(official(name)) for name in FILES)
    ours = load_config("mnist")
    tree = yaml.safe_load(to_yaml(ours))
    assert not is_official(tree) and not is_official({}) and not is_official({"train": {}})
    assert not is_official({**tree, "training": {}})  # a slip in a config of ours
    path = tmp_path / "mine.yaml"
    path.write_text(to_yaml(ours))
    assert read_config(str(path)) == read_config("mnist") == ours


def test_an_unreadable_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "list.yml").write_text("[1, 2]")
    for name in ("binary.yml", "list.yml", "absent.yml"):
        with pytest.raises(UserError, match=name):
            read_config(str(tmp_path / name))
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        read_config("mnits")
