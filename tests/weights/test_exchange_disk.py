"""A disk that fails at any moment of a conversion leaves what was there, and nothing half."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_exchange_refusals import line

import panel_jobs
from diptych.backends.protocol import State
from diptych.errors import MachineError, UserError
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.weights.convert import convert
from diptych.weights.find import find_weights
from diptych.weights.formats.torch_write import write_torch
from diptych.weights.formats.training_list import training_list
from diptych.weights.inspect import inspect, render
from full_disk import failing, room_for

LITTLE = panel_jobs.small("model.ch_mult=[1]", "model.attn_resolutions=[]")
WEIGHTS = initial_weights(make_plan(LITTLE), 0)
FORMS = {"official": "o.ckpt", "jittor": "o.pkl", "safetensors": "o.safetensors", "diffusers": "o",
         "run": "o"}  # fmt: skip


@pytest.fixture(name="source")
def source_file(tmp_path: Path) -> Path:
    path = tmp_path / "ckpt.pth"
    state = State(3, WEIGHTS, WEIGHTS, WEIGHTS, WEIGHTS)
    write_torch(path, training_list(state, LITTLE, 1))
    return path


def content(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("to", FORMS)
def test_each_write_may_fail(
    tmp_path: Path, source: Path, to: str, code: int, overwrite: bool
) -> None:
    out = tmp_path / "out" / FORMS[to]
    options: dict[str, Any] = {"config": LITTLE, "overwrite": overwrite}
    if overwrite:
        convert(str(source), out, to, config=LITTLE, raw=False)
    before = content(tmp_path)
    number = 1
    while True:
        try:
            with failing(number, code) as asked:
                convert(str(source), out, to, **options)
        except (UserError, MachineError) as error:
            assert "\n" not in str(error) and len(str(error)) < 300
            assert isinstance(error, UserError) == (code == errno.EACCES)
            assert content(tmp_path) == before, (number, asked[-3:])
            number += 1 if number < 40 else 17  # a zip file takes 500 alike
            continue
        assert find_weights(str(out), LITTLE).path.exists()
        if number > len(asked):
            break
        assert asked[number - 1] == "open"  # zipfile opens in another mode where one is refused
        number += 1
        if not overwrite:
            out.unlink()
    assert number > len(asked) >= 4 and {"open", "write", "fsync", "replace"} <= set(asked)
    assert not [name for name in content(tmp_path) if ".tmp" in name]


@pytest.mark.parametrize("to", FORMS)
def test_a_disk_that_is_full_in_the_middle(tmp_path: Path, source: Path, to: str) -> None:
    before = content(tmp_path)
    for size in (0, 1, 100, 5000):
        with room_for(size), pytest.raises(MachineError, match="the disk is full") as error:
            convert(str(source), tmp_path / "out" / FORMS[to], to, config=LITTLE)
        line(error)
        assert content(tmp_path) == before


@pytest.mark.parametrize("name", ["fifo", "device", "link to a device", "endless link"])
@pytest.mark.parametrize("to", FORMS)
def test_only_files_and_folders_are_replaced(
    tmp_path: Path, source: Path, to: str, name: str
) -> None:
    out = tmp_path / "out"
    if name == "fifo":
        os.mkfifo(out)
    elif name == "device":
        out = Path("/dev/null")
    else:
        out.symlink_to("/dev/null" if "device" in name else out)
    kind = os.lstat(out).st_mode
    with pytest.raises(UserError) as error:
        convert(str(source), out, to, config=LITTLE, overwrite=True)
    line(error)
    assert os.lstat(out).st_mode == kind


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x" * 250])
def test_names_that_no_disk_takes(tmp_path: Path, source: Path, name: str) -> None:
    with pytest.raises(UserError) as error:
        convert(str(source), tmp_path / name, "safetensors", config=LITTLE)
    line(error)
    with pytest.raises(UserError) as error:
        find_weights(str(tmp_path / name), LITTLE)
    line(error)


def test_integers_declared_as_floats_are_refused(tmp_path: Path, source: Path) -> None:
    convert(str(source), tmp_path / "w.safetensors", config=LITTLE)
    numbers = {name: np.full(array.shape, 7, np.int32) for name, array in WEIGHTS.items()}
    relabelled = {name: array.view(np.float32) for name, array in numbers.items()}
    write_torch(tmp_path / "w.ckpt", relabelled)
    with pytest.raises(UserError, match="integers declared as floats"):
        find_weights(str(tmp_path / "w.ckpt"), LITTLE)


def test_weights_that_are_not_finite_are_told_by_inspect(tmp_path: Path) -> None:
    """NaN is no integer in disguise; the line of a sampler that meets it points to `inspect`."""
    name = next(iter(WEIGHTS))
    large = WEIGHTS["conv_in.bias"] * np.float32(1e30)
    spoilt = {**WEIGHTS, name: np.full_like(WEIGHTS[name], np.nan), "conv_in.bias": large}
    write_torch(tmp_path / "w.ckpt", spoilt)
    facts = inspect(str(tmp_path / "w.ckpt"))
    assert facts["not_finite"] == [name]
    assert facts["largest"] == np.abs(large).max()
    assert f"NOT FINITE      {name}: NaN or infinity" in render(facts)
    write_torch(tmp_path / "fine.ckpt", dict(WEIGHTS))
    facts = inspect(str(tmp_path / "fine.ckpt"))
    assert facts["not_finite"] == [] and "NOT FINITE" not in render(facts)
    json.dumps(facts, allow_nan=False)
