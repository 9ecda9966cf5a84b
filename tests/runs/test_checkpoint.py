"""Checkpoints are read back bit for bit or refused by name; half-written ones are never seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from diptych.backends.protocol import State
from diptych.config.load import load_config
from diptych.errors import MachineError, UserError
from diptych.files import sha256_of
from diptych.network.parameters import parameter_table
from diptych.network.plan import Plan, make_plan
from diptych.runs import checkpoint
from diptych.runs.checkpoint import GROUPS, load_state, load_weights, save
from diptych.types import Weights
from full_disk import room_for
from properties import given, settings, st

PLAN = make_plan(load_config("tiny", ["model.ch_mult=[1]", "data.image_size=4"]))
OTHER = make_plan(load_config("tiny", ["model.ch_mult=[2]", "data.image_size=4"]))
FACTS = {"backend": "torch", "config_identity": "abc"}


def state_of(step: int, plan: Plan = PLAN) -> State:
    """Random bits of every kind: tiny, huge, negative zero, infinite and not a number."""
    rng = np.random.default_rng(step)
    odd = np.array([0.0, -0.0, 1e-45, -3e38, np.inf, -np.inf, np.nan], np.float32)

    def group() -> Weights:
        return {
            name: rng.choice([*odd, *rng.standard_normal(99)], parameter.shape).astype(np.float32)
            for name, parameter in parameter_table(plan).items()
        }

    return State(step, *(group() for _ in GROUPS))


def bits(state: State) -> dict[str, dict[str, bytes]]:
    return {g: {n: a.tobytes() for n, a in getattr(state, g).items()} for g in GROUPS}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint of step 7."""
    return save(tmp_path, state_of(7), FACTS, keep=2)


def refused(path: Path, plan: Plan = PLAN) -> str:
    with pytest.raises(UserError) as error:
        load_state(path, plan)
    assert "\n" not in str(error.value)
    return str(error.value)


# Round trips


def test_a_state_comes_back_bit_for_bit(saved: Path) -> None:
    state, back = state_of(7), load_state(saved, PLAN)
    assert saved.name == "step-00000007" and back.step == 7
    assert bits(back) == bits(state)
    for group in GROUPS:
        arrays = getattr(back, group)
        assert arrays.keys() == getattr(state, group).keys()
        assert all(array.dtype == np.float32 for array in arrays.values())
        one = load_weights(saved, group, PLAN)
        assert {name: array.tobytes() for name, array in one.items()} == bits(state)[group]


def test_arrays_in_another_memory_order_are_saved_as_they_read(tmp_path: Path) -> None:
    """safetensors alone would write their memory as it lies, under the shape that they have."""
    state = state_of(1)
    turned = {name: np.asfortranarray(array) for name, array in state.raw.items()}
    path = save(tmp_path, State(1, turned, state.ema, state.adam_m, state.adam_v), FACTS, keep=1)
    assert bits(load_state(path, PLAN)) == bits(state)


def test_the_folder_holds_what_its_manifest_says(saved: Path) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    assert {key: manifest[key] for key in ("schema", "step", *FACTS)} == {
        "schema": 1,
        "step": 7,
        **FACTS,
    }
    assert sorted(manifest["files"]) == sorted(f"{group}.safetensors" for group in GROUPS)
    for name, digest in manifest["files"].items():
        assert sha256_of(saved / name) == digest
        assert load_file(saved / name).keys() == parameter_table(PLAN).keys()
    assert len(list(saved.iterdir())) == len(GROUPS) + 1


def test_equal_states_give_equal_files(tmp_path: Path) -> None:
    one, other = (save(tmp_path / name, state_of(3), FACTS, keep=1) for name in "ab")
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


# Which ones stay


def test_the_last_k_stay(tmp_path: Path) -> None:
    for step in (1, 2, 10, 99_999_999, 100_000_000):
        save(tmp_path, state_of(step), FACTS, keep=2)
    names = [path.name for path in checkpoint.all_checkpoints(tmp_path)]
    assert names == ["step-99999999", "step-100000000"], "the order is of numbers, not of letters"
    assert checkpoint.latest(tmp_path).name == "step-100000000"
    save(tmp_path, state_of(100_000_001), FACTS, keep=1)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-100000001"]


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for name in ("step-old", "step-1", "mine", ".step-00000001.99.tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "step-00000000").write_text("a file")
    before = {path.name for path in folder.iterdir()}
    save(tmp_path, state_of(5), FACTS, keep=1)
    save(tmp_path, state_of(6), FACTS, keep=1)
    assert {path.name for path in folder.iterdir()} == before | {"step-00000006"}
    assert checkpoint.latest(tmp_path).name == "step-00000006"


def test_a_step_saved_again_is_replaced(tmp_path: Path, saved: Path) -> None:
    (saved / "raw.safetensors").write_bytes(b"torn")
    save(tmp_path, state_of(7), FACTS, keep=2)
    assert bits(load_state(saved, PLAN)) == bits(state_of(7))


def test_a_run_without_checkpoints(tmp_path: Path) -> None:
    assert checkpoint.all_checkpoints(tmp_path) == []
    with pytest.raises(UserError, match="holds no checkpoint; train it first"):
        checkpoint.latest(tmp_path)


# Interruptions


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("call", ["to_bytes", "sha256_of", "write_json"])
def test_an_interrupted_save_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch, call: str, fault: BaseException
) -> None:
    def fail(*_: Any) -> None:
        raise fault

    expected = MachineError if isinstance(fault, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(expected):
        patch.setattr(checkpoint, call, fail)
        save(tmp_path, state_of(8), FACTS, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [saved.name]
    assert bits(load_state(saved, PLAN)) == bits(state_of(7))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path, saved: Path) -> None:
    with room_for(30_000), pytest.raises(MachineError, match="step-00000008: the disk is full"):
        save(tmp_path, state_of(8), FACTS, keep=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [saved.name]
    assert bits(load_state(saved, PLAN)) == bits(state_of(7))


# Damage


@pytest.mark.parametrize("group", GROUPS)
def test_a_missing_group_is_named(saved: Path, group: str) -> None:
    (saved / f"{group}.safetensors").unlink()
    assert f"{group}.safetensors: is missing; the checkpoint is not whole" in refused(saved)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("run"), state_of(7), FACTS, keep=2)


@given(st.sampled_from(GROUPS), st.integers(0, 10**9), st.integers(1, 255), st.booleans())
@settings(max_examples=25)
def test_any_changed_byte_or_cut_is_seen(
    damaged: Path, group: str, where: int, flip: int, cut: bool
) -> None:
    path = damaged / f"{group}.safetensors"
    whole = path.read_bytes()
    at = where % len(whole)
    changed = whole[:at] if cut else whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    try:
        path.write_bytes(changed)
        assert f"{path}: is damaged" in refused(damaged)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}junk"])
def test_a_file_that_is_no_safetensors_though_its_hash_is_right(
    saved: Path, content: bytes
) -> None:
    path = saved / "ema.safetensors"
    path.write_bytes(content)
    edit(saved, lambda manifest: manifest["files"].update({path.name: sha256_of(path)}))
    assert "not a valid safetensors file" in refused(saved)


def edit(saved: Path, change: Any) -> None:
    manifest = json.loads((saved / "manifest.json").read_text())
    change(manifest)
    (saved / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "null"])
def test_a_damaged_manifest_is_named(saved: Path, content: str) -> None:
    (saved / "manifest.json").write_text(content)
    assert f"{saved / 'manifest.json'}: " in refused(saved)
    (saved / "manifest.json").unlink()
    assert "manifest.json: not found" in refused(saved)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "manifest.json: files: input should be a valid dictionary"),
        ([], "manifest.json: files: input should be a valid dictionary"),
        (True, "manifest.json: files: input should be a valid dictionary"),
        ({}, "raw.safetensors: is damaged"),
        ({"raw.safetensors": 3}, "manifest.json: files.raw.safetensors: input should be a valid"),
    ],
)
def test_a_manifest_without_hashes_vouches_for_nothing(saved: Path, files: Any, said: str) -> None:
    edit(saved, lambda manifest: manifest.update(files=files))
    assert said in refused(saved)


@pytest.mark.parametrize("step", [None, "7", 7.0, [7], True, 12, -5])
def test_a_manifest_without_a_step(saved: Path, step: Any) -> None:
    edit(saved, lambda manifest: manifest.update(step=step))
    assert f"says step {step}, its folder says 7" in refused(saved)


def test_a_checkpoint_of_another_network(saved: Path) -> None:
    message = refused(saved, OTHER)
    assert "raw.safetensors: weight 'down.0.block.0.conv1.weight' is (32, 32, 3, 3)" in message
    assert "needs (64, 32, 3, 3)" in message


def test_a_checkpoint_that_cannot_be_removed_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a network file system where another process reads it."""

    def busy(path: Path) -> None:
        raise OSError(39, "Directory not empty")

    save(tmp_path, state_of(1), FACTS, keep=1)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", busy)
    made = save(tmp_path, state_of(2), FACTS, keep=1)
    assert made.is_dir() and len(checkpoint.all_checkpoints(tmp_path)) == 2
    assert "step-00000001: cannot be removed (Directory not empty)" in caplog.text
