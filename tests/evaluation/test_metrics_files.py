"""Files of statistics are read as a stranger's: what no images have is refused by name."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np
import pytest

from diptych.errors import MachineError, UserError
from diptych.evaluation.statistics import Statistics
from diptych.evaluation.statistics_file import is_statistics, load, save
from full_disk import room_for

RANDOM = np.random.RandomState(0)
ROWS = RANDOM.normal(size=(40, 5)).astype(np.float32)
MEAN, COV = ROWS.mean(0), np.cov(ROWS, rowvar=False)


def write(path, **arrays: Any):
    np.savez(path, **arrays)
    return path


def statistics(rows=ROWS):
    found = Statistics(rows.shape[1])
    found.add(rows)
    return found


def changed(cov, at, value):
    made = cov.copy()
    made[at] = value
    return made


FOREIGN = {
    "not symmetric": ({"sigma": changed(COV, (0, 1), 9.0)}, "sigma is not symmetric"),
    "negative": ({"sigma": COV - 2 * np.eye(5)}, "not positive semi-definite"),
    "a negative eigenvalue alone": (
        {"sigma": changed(changed(COV, (0, 1), 3.0), (1, 0), 3.0)}, "not positive semi-definite"),
    "zero variances": ({"sigma": np.ones((5, 5)) - np.eye(5)}, "not symmetric|semi-definite"),
    "complex": ({"sigma": COV + 0j}, "sigma is of type complex128"),
    "text": ({"mu": np.array(list("abcde"))}, "mu is of type <U1"),
    "truth values": ({"mu": np.ones(5, bool)}, "mu is of type bool"),
    "nan": ({"sigma": changed(COV, (2, 2), np.nan)}, "sigma holds values that are not finite"),
    "infinity": ({"mu": np.full(5, np.inf)}, "mu holds values that are not finite"),
    "no square": ({"sigma": COV[:4]}, r"mu is \(5,\) and sigma \(4, 5\)"),
    "another size": ({"sigma": COV[:4, :4]}, r"mu is \(5,\) and sigma \(4, 4\)"),
    "a scalar": ({"mu": np.float64(1.0)}, r"mu is \(\)"),
    "nothing": ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu is \(0,\)"),
    "objects": ({"mu": np.array([None] * 5)}, "not a readable file of statistics"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_no_mean_and_covariance_is_refused(tmp_path, case):
    arrays, message = FOREIGN[case]
    path = write(tmp_path / "s.npz", **{"mu": MEAN, "sigma": COV, **arrays})
    with pytest.raises(UserError, match=message) as error:
        load(path)
    assert "s.npz: " in str(error.value) and "\n" not in str(error.value)


def test_rounding_and_singular_covariances_are_no_fault(tmp_path):
    few = RANDOM.normal(size=(20, 300)).astype(np.float32) * RANDOM.lognormal(size=300)
    cov = np.cov(few, rowvar=False).astype(np.float32)
    assert np.linalg.eigvalsh(cov.astype(np.float64))[0] < 0  # of rank 19
    found = load(write(tmp_path / "s.npz", mu=few.mean(0), sigma=cov)).moments
    assert np.array_equal(found.cov, cov.astype(np.float64))
    assert load(write(tmp_path / "z.npz", mu=MEAN, sigma=np.zeros((5, 5)))).moments.n is None


NOTES = {
    "n": ({"n": 10**30}, "a whole number beyond 64 bits"),
    "too many": ({"n": 2**50}, f"n is {2**50}, expected 2 to {2**40}"),
    "one": ({"n": 1}, "n is 1, expected 2"),
    "n as text": ({"n": "40"}, "n is 40"),
    "n as truth": ({"n": True}, "n is True"),
    "n as fraction": ({"n": 40.5}, "n is 40.5"),
    "another n": ({"n": 41}, "mu is not that of the sums"),
    "dims": ({"dims": 10**9}, "dims is 1000000000, mu has 5"),
    "schema": ({"schema": "x"}, "schema x"),
    "protocol": ({"protocol": [1]}, "protocol is not an object"),
    "no n": ({"n": ...}, "KeyError: 'n'"),
    "deep": ("[" * 100000, "damaged statistics"),
    "a list": ("[]", "damaged statistics"),
    "no json": ("{", "damaged statistics"),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("case", NOTES)
def test_notes_that_lie_are_refused(tmp_path, case, suffix):
    change, message = NOTES[case]
    save(tmp_path / "good.npz", statistics(), {})
    with np.load(tmp_path / "good.npz") as file:
        arrays = {name: file[name] for name in file.files}
    note = json.loads(str(arrays.pop("note")))
    text = change
    if isinstance(change, dict):
        made = {key: value for key, value in (note | change).items() if value is not ...}
        text = json.dumps(made)
    path = tmp_path / f"s{suffix}"
    if suffix == ".npz":
        write(path, note=np.array(text), **arrays)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, str(path), metadata={"note": text})
    with pytest.raises(UserError, match=message):
        load(path)


SUMS = {
    "another type": ("sums.10", np.zeros((2, 5)), "'sums.10' is float64"),
    "another shape": ("outer.10", np.zeros((3, 4), np.int64), r"'outer.10' is int64 \(3, 4\)"),
    "a strange grid": ("sums.11", np.zeros((2, 5), np.int64), "an array 'sums.11'"),
    "half a grid": ("sums.26", np.zeros((2, 5), np.int64), "not of the same grids"),
    "junk": ("junk", np.zeros(2), "an array 'junk'"),
    "changed": ("sums.10", np.ones((2, 5), np.int64), "is not that of the sums"),
}


@pytest.mark.parametrize("case", SUMS)
def test_sums_that_do_not_fit_are_refused(tmp_path, case):
    name, array, message = SUMS[case]
    save(tmp_path / "good.npz", statistics(), {})
    with np.load(tmp_path / "good.npz") as file:
        arrays = {each: file[each] for each in file.files}
    path = write(tmp_path / "s.npz", **{**arrays, name: array})
    with pytest.raises(UserError, match=message):
        load(path)


def test_members_that_are_no_arrays_are_named(tmp_path):
    path = write(tmp_path / "s.npz", mu=MEAN, sigma=COV)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("read me", b"hello")
    with pytest.raises(UserError, match=r"s\.npz: 'read me' is not an array"):
        load(path)
    (tmp_path / "t.safetensors").write_bytes(b"\xff" * 100)
    assert is_statistics(tmp_path / "t.safetensors")
    with pytest.raises(UserError, match=r"t\.safetensors: not a readable file"):
        load(tmp_path / "t.safetensors")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, suffix):
    path = tmp_path / f"s{suffix}"
    wide = statistics(RANDOM.normal(size=(50, 40)).astype(np.float32))
    save(path, statistics(), {})
    before = path.read_bytes()
    with room_for(4096), pytest.raises(MachineError, match="the disk is full"):
        save(path, wide, {})
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [path.name]
