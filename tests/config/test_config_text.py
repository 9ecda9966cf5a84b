"""Configs as users write them: the meaning of YAML and `--set`, and one line for each error."""

from __future__ import annotations

from pathlib import Path

import pytest

from diptych.config.load import load_config, parse_tree, validate
from diptych.errors import UserError


def refused(*changes: str, preset: str = "tiny") -> str:
    """The one line with which a change of a preset is refused."""
    with pytest.raises(UserError) as error:
        load_config(preset, list(changes))
    message = str(error.value)
    assert "\n" not in message and error.value.exit_code == 2
    return message


def refused_text(text: str) -> str:
    """The one line with which a YAML text is refused."""
    with pytest.raises(UserError) as error:
        validate(parse_tree(text, "file.yaml"), "file.yaml")
    message = str(error.value)
    assert message.startswith("file.yaml: ") and "\n" not in message
    return message


@pytest.mark.parametrize(
    "change, hint",
    [
        ("trian.lr=1", "key 'trian' is not known; did you mean 'train'?"),
        ("train.learning=1", "key 'train.learning' is not known"),
        ("train.batchsize=1", "key 'train.batchsize' is not known; did you mean 'batch_size'?"),
        ("model.attn_resolution=[7]", "did you mean 'attn_resolutions'?"),
        ("diffusion.timestep=10", "did you mean 'timesteps'?"),
        ("data.size=14", "did you mean 'image_size'?"),
        ("sed=1", "key 'sed' is not known; did you mean 'seed'?"),
        ("zzz=1", "known: data, diffusion, model, seed, train"),
        ("train.zzz=1", "known: accumulate, batch_size, beta1, beta2"),
    ],
)
def test_an_unknown_key_names_the_nearest(change: str, hint: str) -> None:
    assert hint in refused(change)


def test_an_unknown_preset_names_the_nearest() -> None:
    assert refused(preset="tinny") == "preset 'tinny' is not known; did you mean 'tiny'?"
    said = refused(preset="qqq")
    assert "known: bedroom, celeba, church, cifar10, fashion_mnist, mnist, mnist_con" in said


@pytest.mark.parametrize("change", ["train.lr", "=1", "train.=1", ".lr=1", "a.b.c=1", ""])
def test_a_change_must_be_key_equals_value(change: str) -> None:
    assert "expected section.key=value, for example train.lr=1e-4" in refused(change)


@pytest.mark.parametrize("key", ["steps", "epochs", "batch_size", "grid_every", "checkpoint_every"])
def test_whole_numbers_have_an_end(key: str) -> None:
    """A record with a larger one could not be read again."""
    assert load_config("tiny", [f"train.{key}={2**63 - 1}"])
    assert f"{key} is {2**63}; whole numbers are 9,223," in refused(f"train.{key}={2**63}")


def test_changes_that_are_no_values() -> None:
    assert "'[1' is not a YAML value" in refused("model.ch_mult=[1")
    assert "'seed' is not a section" in refused("seed=1", "seed.x=1")
    for change in ("train=5", "train={lr: 1}"):
        assert "'train' is a section; set its keys one by one" in refused(change)
    assert "is not a YAML value" in refused("seed=" + "9" * 5000)


@pytest.mark.parametrize(
    "text, value",
    [("1e-4", 1e-4), ("2E+3", 2000.0), ("1.5e2", 150.0), ("3", 3.0), ("1.", 1.0), ("+1e0", 1.0)],
)
def test_numbers_mean_what_people_mean(text: str, value: float) -> None:
    """YAML 1.1 alone would read `1e-4` as a string."""
    assert load_config("tiny", [f"train.lr={text}"]).train.lr == value


def test_the_last_change_of_a_key_wins() -> None:
    assert load_config("tiny", ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "text",
    [
        "- a list",
        "",
        "just words",
        "data: {source: [}",
        "data:",
        "data: &a {x: *a}",
        "data: &a [*a]",
        "2020-01-01: 3",
        "seed: " + "9" * 5000,
        "seed: " + "[" * 3000 + "]" * 3000,
        "seed: !!python/object/apply:os.getcwd []",
        'seed: "\\ud800"',
        "a\0b: 1",
    ],
)
def test_yaml_that_is_no_config_is_refused_in_one_line(text: str) -> None:
    refused_text(text)


def test_a_config_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("binary.yaml", "folder.yaml", "missing.yaml"):
        assert f"{name}: the config cannot be read" in refused(preset=str(tmp_path / name))
