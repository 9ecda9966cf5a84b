"""Configs: every key is known, every range is checked, and YAML round trips are exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from diptych.config.load import (
    DURATION_KEYS,
    Config,
    flatten,
    load_config,
    parse_tree,
    preset_names,
    to_yaml,
    validate,
)
from diptych.errors import UserError
from properties import given, st

# Of the preset `mnist` before any key was added; changed on purpose only.
MNIST_IDENTITY = "e5551d4beaea97653f814a836f979c1a6fb7f6d8a4a9cba499fff3a12caf846f"


def refused(*changes: str, preset: str = "tiny") -> str:
    """The one line with which a change of a preset is refused."""
    with pytest.raises(UserError) as error:
        load_config(preset, list(changes))
    message = str(error.value)
    assert "\n" not in message and error.value.exit_code == 2
    return message


positive = st.floats(1e-300, 1e300)
fraction = st.floats(0, 1, exclude_max=True)
inside = st.floats(0, 1, exclude_min=True, exclude_max=True)
count = st.integers(1, 10**12)


def with_objective(diffusion: dict[str, Any]) -> Any:
    """All that goes with each other: eps says nothing where nothing of the image is left."""
    pairs = [("eps", False), ("x0", False), ("x0", True), ("v", False), ("v", True)]
    keys = ("objective", "zero_terminal_snr")
    chosen = st.sampled_from(pairs).map(lambda pair: dict(zip(keys, pair, strict=True)))
    return chosen.map(lambda both: {**diffusion, **both})


trees = st.fixed_dictionaries(
    {
        "data": st.fixed_dictionaries(
            {
                "source": st.text(st.characters(codec="utf-8"), max_size=20),
                "split": st.sampled_from(["train", "test"]),
                "image_size": st.integers(1, 8).map(lambda n: n * 128)
                | st.sampled_from([[128, 256], [1024, 384]]),
                "channels": st.integers(1, 4),
                "random_flip": st.booleans(),
                "skip_bad": st.booleans(),
                "crop": st.none() | st.sampled_from(["center", "celeba"]),
                "rescaled": st.just(True),
                "logit_transform": st.just(False),
                "dequantization": st.sampled_from(["none", "uniform", "gaussian"]),
                "held_out": st.floats(0, 1) | st.integers(2, 1000).map(float),
            }
        ),
        "model": st.fixed_dictionaries(
            {
                "ch": st.integers(1, 32).map(lambda n: n * 32),
                "norm_groups": st.sampled_from([1, 2, 4, 8, 16, 32]),
                "ch_mult": st.lists(st.integers(1, 9), min_size=1, max_size=8),
                "num_res_blocks": st.integers(1, 8),
                "attn_resolutions": st.lists(st.integers(), max_size=4),
                "dropout": fraction,
                "resamp_with_conv": st.booleans(),
                "num_classes": st.integers(0, 10_000),
                "norm_eps": inside,
            }
        ),
        "diffusion": st.fixed_dictionaries(
            {
                "schedule": st.sampled_from(
                    ["linear", "quad", "const", "jsd", "sigmoid", "cosine"]
                ),
                "beta_start": inside,
                "beta_end": inside,
                "timesteps": st.integers(2, 100_000),
            }
        ).flatmap(with_objective),
        "train": st.fixed_dictionaries(
            {
                "batch_size": count,
                "accumulate": st.just(1),  # more need as many images in a batch
                "checkpoint_activations": st.just(False),  # not with every `compile`
                "compile": st.booleans(),
                "epochs": count,
                "steps": st.none() | count,
                "lr": positive,
                "warmup_steps": st.integers(0, 10**6),
                "beta1": fraction,
                "beta2": fraction,
                "eps": positive,
                "grad_clip": positive,
                "lr_decay": st.sampled_from(["linear", "cosine"]),
                "lr_final": st.floats(0, 1),
                "ema_rate": fraction,
                "ema_warmup": st.booleans(),
                "loss": st.sampled_from(["sum", "mean"]),
                "noise": st.sampled_from(["host", "keyed", "device"]),
                "precision": st.sampled_from(["fp32", "tf32", "bf16"]),
                "label_dropout": st.floats(0, 1),
                "weighting": st.just("none"),  # the other refuses zero_terminal_snr
                "min_snr_gamma": positive,
                "log_every": count,
                "checkpoint_every": count,
                "keep_checkpoints": count,
                "grid_every": st.integers(0, 10**6),
                "validate_every": st.just(0),  # others need data.held_out
            }
        ),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@given(trees)
def test_yaml_gives_back_the_whole_config(tree: dict[str, Any]) -> None:
    config = validate(tree, "tree")
    assert validate(parse_tree(to_yaml(config), "yaml"), "yaml") == config
    assert config.model_dump(mode="json") == tree, "a value was changed on the way in"


# Each key: values at the edge that are taken, and values past it that are refused.
RANGES: dict[str, tuple[list[str], list[str]]] = {
    "data.source": (["mnist", "''"], ["3", "null", "[a]", "true"]),
    "data.split": (["train", "test"], ["valid", "Train", "null", "0"]),
    "data.image_size": (["4", "1024"], ["2", "1026", "0", "-14", "14.0", "'14'", "null", "true"]),
    "data.channels": (["1", "4"], ["0", "5", "-1", "1.0"]),
    "data.random_flip": (["true", "false"], ["1", "0", "null", "'true'"]),
    "data.skip_bad": (["true", "false"], ["1", "0", "null", "'true'"]),
    "data.crop": (["null", "center"], ["3", "[a]"]),
    "data.rescaled": (["true", "false"], ["1", "null", "'true'"]),
    "data.logit_transform": (["false"], ["1", "null", "true"]),  # true: see the next test
    "data.dequantization": (["none", "uniform", "gaussian"], ["null", "0", "Uniform"]),
    "data.held_out": (["0", "0.1", "1", "500"], ["-1", "1.5", ".nan", "null", "true"]),
    "model.ch": (["32", "1024"], ["0", "31", "33", "48", "1056", "-32", "32.0"]),
    "model.ch_mult": (["[1]", "[7, 1]"], ["[]", "[0]", "[1, -1]", "[1.5]", "2", "null"]),
    "model.num_res_blocks": (["1", "8"], ["0", "9", "1.5"]),
    "model.attn_resolutions": (["[]", "[7, 14]"], ["7", "[7.5]", "null", "['7']"]),
    "model.dropout": (["0", "0.999", "0.0"], ["1", "-0.1", "1.5", ".nan", "null"]),
    "model.resamp_with_conv": (["true", "false"], ["1", "null"]),
    "model.num_classes": (["0", "10000"], ["-1", "10001", "10.0", "null"]),
    "model.norm_groups": (["1", "32", "8"], ["0", "-8", "33", "3", "64", "8.0", "null", "true"]),
    "model.norm_eps": (["1e-6", "1e-5"], ["0", "-1e-6", "1", "null"]),
    "diffusion.schedule": (
        ["linear", "quad", "const", "jsd", "sigmoid", "cosine"],
        ["Linear", "square", "null", "1"],
    ),
    "diffusion.beta_start": (["1e-10", "0.999"], ["0", "1", "-1e-4", ".inf", "small"]),
    "diffusion.beta_end": (["1e-10", "0.999"], ["0", "1", "-0.02", ".nan"]),
    "diffusion.timesteps": (["2", "100000"], ["1", "0", "100001", "1000.0", "-5"]),
    "diffusion.objective": (["eps", "x0", "v"], ["epsilon", "null", "1"]),
    "diffusion.zero_terminal_snr": (["false"], ["true", "1", "null"]),  # true: see below
    "train.batch_size": (["1", "4096"], ["0", "-1", "64.0", "null"]),
    "train.accumulate": (["1", "2"], ["0", "-1", "2.0", "null"]),
    "train.checkpoint_activations": (["true", "false"], ["1", "null", "'true'"]),
    "train.epochs": (["1"], ["0", "-1", "2.5"]),
    "train.steps": (["1", "null"], ["0", "-1", "10.0"]),
    "train.lr": (["1e-4", "1", "1e300"], ["0", "-1e-4", ".nan", ".inf", "1e999", "true", "fast"]),
    "train.warmup_steps": (["0", "5000"], ["-1", "1.5"]),
    "train.lr_decay": (["none", "linear", "cosine"], ["Cosine", "null", "exponential"]),
    "train.lr_final": (["0"], ["1.1", "-0.1", "null", ".nan", "0.1"]),  # 0.1: see below
    "train.beta1": (["0", "0.9999"], ["1", "-0.1", "1.1"]),
    "train.beta2": (["0", "0.9999"], ["1", "-0.1", "1.1"]),
    "train.eps": (["1e-300"], ["0", "-1e-8", ".inf"]),
    "train.grad_clip": (["1e-9", "1e9"], ["0", "-1", ".inf"]),
    "train.ema_rate": (["0", "0.9999"], ["1", "-0.1", "2"]),
    "train.ema_warmup": (["true", "false"], ["1", "null", "0.7"]),
    "train.loss": (["sum", "mean"], ["l1", "null"]),
    "train.noise": (["host", "keyed", "device"], ["cpu", "null"]),
    "train.precision": (["fp32", "tf32", "bf16"], ["fp16", "null"]),
    "train.compile": (["true", "false"], ["1", "null", "'true'"]),
    "train.label_dropout": (["0", "1", "0.5"], ["-0.1", "1.1", "null", ".nan"]),
    "train.weighting": (["none", "min-snr"], ["minsnr", "null"]),
    "train.min_snr_gamma": (["1e-3", "5"], ["0", "-1", ".inf"]),
    "train.log_every": (["1"], ["0", "-1", "0.5"]),
    "train.checkpoint_every": (["1"], ["0", "-1", "0.5"]),
    "train.keep_checkpoints": (["1"], ["0", "-1", "0.5"]),
    "train.grid_every": (["0", "1"], ["-1", "0.5"]),
    "train.validate_every": (["0"], ["-1", "0.5", "null"]),  # more: see below
    "seed": (["0", "9223372036854775807"], ["-1", "9223372036854775808", "1.0", "null", "x"]),
}


def test_every_key_has_its_range_tested() -> None:
    assert RANGES.keys() == flatten(Config()).keys()


@pytest.mark.parametrize("key", RANGES)
def test_every_range(key: str) -> None:
    taken, outside = RANGES[key]
    section, _, name = key.rpartition(".")
    for value in taken:
        given_value = flatten(load_config("tiny", [f"{key}={value}"]))[key]
        expected = yaml.safe_load(value)
        assert given_value == (float(expected) if isinstance(given_value, float) else expected)
    for value in outside:
        message = refused(f"{key}={value}")
        assert message.startswith(f"tiny: {section}") and name in message


def test_transforms_that_exclude_each_other_are_refused() -> None:
    """The official code takes rescaled on the way in and the logit on the way out."""
    logit = ["data.rescaled=false", "data.logit_transform=true"]
    assert load_config("tiny", logit).data.logit_transform
    assert load_config("tiny", [*logit, "data.dequantization=uniform"])
    assert "exclude each other" in refused("data.logit_transform=true")
    assert "no value" in refused(*logit, "data.dequantization=gaussian")


def test_keys_that_came_later_leave_the_identity_of_earlier_runs() -> None:
    """The preset's identity before there were such keys."""
    first = ["model.norm_groups=32", "train.noise=host", "train.lr=0.001", "train.warmup_steps=200",
             "train.lr_decay=none", "train.ema_rate=0.998", "train.ema_warmup=false", "model.ch=32",
             "model.ch_mult=[1,2,2]", "diffusion.objective=eps", "train.weighting=none",
             "train.epochs=10"]  # fmt: skip
    assert load_config("mnist", first).identity() == MNIST_IDENTITY
    for change in ("data.dequantization=uniform", "model.norm_groups=16", "train.lr_decay=linear",
                   "train.ema_warmup=true"):  # fmt: skip
        assert load_config("mnist", [*first, change]).identity() != MNIST_IDENTITY


def test_groups_of_norms_divide_every_width() -> None:
    assert load_config("tiny", ["model.ch=48", "model.norm_groups=16"]).model.ch == 48
    assert load_config("tiny", ["model.ch=8", "model.norm_groups=8"]).model.norm_groups == 8
    message = refused("model.ch=48")
    assert "norm_groups 32 does not divide ch 48" in message and "16 groups" in message
    assert "use for example 8 groups" in refused("model.ch=64", "model.norm_groups=5")
    assert "multiple of 8" in refused("model.ch=20", "model.norm_groups=4")


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_a_runs_length_is_of_its_identity_if_the_rate_decays_over_it(decay: str) -> None:
    settings = [f"train.lr_decay={decay}"]
    config = load_config("mnist", settings)
    for length in ("train.epochs=11", "train.steps=5000"):
        longer = load_config("mnist", [*settings, length])
        assert (longer.identity() == config.identity()) == (decay == "none")
    assert load_config("mnist", [*settings, "train.log_every=3"]).identity() == config.identity()


def test_a_last_rate_without_a_decay_is_refused() -> None:
    assert load_config("tiny", ["train.lr_decay=linear", "train.lr_final=1"]).train.lr_final == 1
    assert "set train.lr_decay" in refused("train.lr_final=0.1")


def test_a_validation_needs_held_out_pictures() -> None:
    config = load_config("tiny", ["train.validate_every=5", "data.held_out=0.1"])
    never = load_config("tiny", ["data.held_out=0.1"])
    assert config.identity() == never.identity() != load_config("tiny").identity()
    assert "set data.held_out" in refused("train.validate_every=5")


def test_a_size_must_halve_once_for_each_level() -> None:
    assert load_config("tiny", ["data.image_size=28", "model.ch_mult=[1, 1, 1]"])
    message = refused("data.image_size=28", "model.ch_mult=[1, 1, 1, 1]")
    assert "28 cannot be halved 3 times" in message and "multiple of 8" in message


def test_a_size_that_is_no_square_has_one_form() -> None:
    plain = load_config("tiny")
    for text in ("14", "14x14", "[14, 14]"):  # a square stays a number, and its run the same one
        square = load_config("tiny", [f"data.image_size={text}"])
        assert square == plain and square.identity() == plain.identity()
        assert to_yaml(square) == to_yaml(plain)
    oblong = load_config("tiny", ["data.image_size=8x12"])
    assert oblong == load_config("tiny", ["data.image_size=[8, 12]"])
    assert oblong.data.image_size == (8, 12) == oblong.data.sides
    assert oblong.data.shape == (1, 8, 12)
    assert flatten(oblong)["data.image_size"] == [8, 12]
    turned = load_config("tiny", ["data.image_size=12x8"])
    assert len({plain.identity(), oblong.identity(), turned.identity()}) == 3
    for wrong in ("2x64", "64x1026", "14x", "[14]", "[4, 8, 4]", "[14, 28.0]", "[true, true]"):
        assert "expected 4 to 1024 pixels, or HEIGHTxWIDTH" in refused(f"data.image_size={wrong}")
    said = refused("data.image_size=8x12", "model.ch_mult=[1, 1, 1, 1]")
    assert "the width 12 cannot be halved 3 times" in said and "multiple of 8" in said
    assert "the height 12" in refused("data.image_size=12x8", "model.ch_mult=[1, 1, 1, 1]")


def test_a_file_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("train: {lr: 5e-4}\nseed: 7\n")
    config = load_config(str(tmp_path / "own"))
    default = flatten(Config())
    changed = {key: value for key, value in flatten(config).items() if default[key] != value}
    assert changed == {"train.lr": 5e-4, "seed": 7}


def test_every_preset_is_a_config() -> None:
    assert preset_names() == [
        "bedroom", "celeba", "church", "cifar10", "fashion_mnist", "mnist", "mnist_conditional",
        "small_colour", "tiny",
    ]  # fmt: skip
    for name in preset_names():
        config = load_config(name)
        assert validate(parse_tree(to_yaml(config), name), name) == config


@pytest.mark.parametrize(
    "key",
    sorted(
        RANGES.keys()
        - {
            "data.logit_transform",
            "diffusion.zero_terminal_snr",
            "train.lr_final",
            "train.validate_every",
        }
    ),
)
def test_the_identity_is_of_all_but_durations(key: str) -> None:
    base = ["data.image_size=32", "model.ch_mult=[1, 1]", "train.lr_decay=none"]
    config = load_config("mnist", base)
    others = (load_config("mnist", [*base, f"{key}={value}"]) for value in RANGES[key][0])
    changed = next(other for other in others if other != config)
    assert (changed.identity() == config.identity()) == (key in DURATION_KEYS)


def test_the_identity_does_not_depend_on_the_order_of_the_keys() -> None:
    tree = load_config("tiny").model_dump(mode="json")
    backwards = dict(reversed(list(tree.items())))
    assert validate(backwards, "x").identity() == load_config("tiny").identity()


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 1  # type: ignore[misc]
