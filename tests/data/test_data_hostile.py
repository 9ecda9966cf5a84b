"""Whatever bytes a file of data holds, reading it gives a result or one clear line."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import photos
from data_files import NAMES, bare_machine, idx, put  # noqa: F401  (a fixture)
from diptych.cli import main, out_of_memory
from diptych.config.load import load_config
from diptych.data import load_dataset, read_idx
from diptych.data.crops import Recipe
from diptych.data.picture import KINDS, decode, read_pixels
from diptych.data.readers import npz
from diptych.errors import MachineError, UserError
from diptych.evaluation import reference
from diptych.evaluation.statistics import Statistics
from diptych.evaluation.statistics_file import is_statistics, load, save
from diptych.network.plan import make_plan
from diptych.sampling import memory
from properties import given, settings, st

SMALL = Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 11, 3), dtype=np.uint8))


def result_or_one_line(read: Callable[[], object]) -> object:
    """The result of `read`; None if it refuses in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's and NumPy's remarks on damaged headers
        try:
            return read()
        except (UserError, MachineError) as error:
            assert str(error) and "\n" not in str(error)
            return None


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some of them replaced, a piece taken out or repeated, or cut short."""
    size = len(whole)
    places = st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, 255)), max_size=8)

    def change(changes: list[tuple[int, int]], cut: int, start: int, length: int, again: int):
        data = bytearray(whole)
        for at, value in changes:
            data[at] = value
        data[start : start + length] = bytes(data[start : start + length]) * again
        return bytes(data[:cut])

    return st.builds(
        change, places, st.integers(0, size * 2), st.integers(0, size), st.integers(0, 30),
        st.integers(0, 3),
    )  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in Image.SAVE])
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_pictures(kind: str, data: Any) -> None:
    whole = photos.encoded(SMALL, kind)
    held = data.draw(st.one_of(damaged(whole), st.binary(max_size=64).map(lambda b: whole[:9] + b)))
    found = result_or_one_line(lambda: read_pixels(held, "x"))
    assert found is None or (found.dtype == np.uint8 and found.ndim == 3)  # type: ignore[attr-defined]
    made = result_or_one_line(lambda: decode(held, "x", Recipe(8)))
    assert made is None or made.shape == (3, 8, 8)  # type: ignore[attr-defined]


def zipped(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return held.getvalue()


def array_file(array: np.ndarray) -> bytes:
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


IMAGES = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
NPZ = zipped({"images.npy": array_file(IMAGES), "labels.npy": array_file(np.arange(2))})


@settings(max_examples=150)
@given(held=st.one_of(damaged(NPZ), st.binary(max_size=200)), suffix=st.sampled_from(npz.NAMES))
def test_damaged_npz(tmp_path_factory: Any, held: bytes, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.npz"
    path.write_bytes(held)
    result_or_one_line(lambda: npz.shape_of(path))
    result_or_one_line(lambda: list(npz.stream(path)))
    found = result_or_one_line(lambda: npz.read_npz(path))
    assert found is None or found[0].ndim == 4  # type: ignore[index]


@settings(max_examples=100)
@given(
    name=st.sampled_from(["images.npy", "images", "a", "labels.npy", "arr_0.npy"]),
    held=st.one_of(damaged(array_file(IMAGES)), st.binary(max_size=40)),
)
def test_npz_with_junk_members(tmp_path_factory: Any, name: str, held: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.npz"
    path.write_bytes(zipped({name: held}))
    result_or_one_line(lambda: list(npz.stream(path)))
    result_or_one_line(lambda: npz.read_npz(path))


@pytest.mark.parametrize(
    "shape", [(10**9, 4, 4, 3), (2**62, 4, 4, 3), (2, 2**40, 2**40), (5, 4, 4, 3)]
)
def test_an_npz_header_that_promises_more_than_there_is(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    held = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(held, header)  # type: ignore[no-untyped-call]
    for path, data in (
        (tmp_path / "x.npz", zipped({"images.npy": held.getvalue() + bytes(96)})),
        (tmp_path / "x.npy", held.getvalue() + bytes(96)),
    ):
        path.write_bytes(data)
        for read in (npz.shape_of, npz.read_npz):
            with pytest.raises(UserError, match=r"ends in image \d of"):
                read(path)


@settings(max_examples=150)
@given(
    held=damaged(idx(np.zeros((2, 3, 3), np.uint8))),
    packed=st.booleans(),
    ndim=st.sampled_from([1, 3]),
)
def test_damaged_idx(tmp_path_factory: Any, held: bytes, packed: bool, ndim: int) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.idx"
    path.write_bytes(gzip.compress(held) if packed else held)
    result_or_one_line(lambda: read_idx(path, ndim))


def test_idx_headers_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    header = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    path.write_bytes(gzip.compress(header + bytes(10)))
    with pytest.raises(UserError, match=r"packed bytes cannot hold"):
        read_idx(path, 3)
    path.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 1, 2, 2) + bytes(10**8)))
    with pytest.raises(UserError, match="bytes that do not belong"):  # and 10**8 are not unpacked
        read_idx(path, 3)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a FIFO; expected an IDX file"):
        read_idx(path, 3)


def good_statistics(path: Path) -> bytes:
    found = Statistics(3)
    found.add(np.random.RandomState(1).normal(size=(9, 3)).astype(np.float32))
    save(path, found, {"extractor": "x"})
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_damaged_statistics(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    whole = good_statistics(path)

    @settings(max_examples=150)
    @given(held=st.one_of(damaged(whole), st.binary(max_size=100)))
    def holds(held: bytes) -> None:
        path.write_bytes(held)
        result_or_one_line(lambda: is_statistics(path))
        result_or_one_line(lambda: load(path))

    holds()


# A CelebA zip as other programs make it


def test_a_celeba_zip_with_backslashes_and_a_macs_folder(bare: Path) -> None:
    folder = photos.put_celeba(bare / "d", 10)
    expected = load_dataset("celeba", image_size=32, data_dir=bare / "d").images[:]
    pictures = sorted((folder / "img_align_celeba").iterdir())
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for path in pictures:
            archive.writestr(f"__MACOSX/img_align_celeba/{path.name}", b"resource")
            archive.writestr(f"celeba\\img_align_celeba\\{path.name}", path.read_bytes())
            path.unlink()
    (folder / "img_align_celeba").rmdir()
    found = load_dataset("celeba", image_size=32, data_dir=bare / "d")
    assert np.array_equal(found.images[:], expected)


# A cache that cannot be written


def test_features_are_used_though_they_cannot_be_kept(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "file").touch()
    reference._keep(tmp_path / "file" / "mnist", {"pool": np.zeros((2, 3), np.float32)})
    said = capsys.readouterr().err
    assert "are not kept" in said and "XDG_CACHE_HOME" in said and "--no-cache" in said


def test_a_download_that_cannot_be_stored_names_the_folder(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "file"))
    with pytest.raises(MachineError, match=r"file/diptych/data/mnist: .* set XDG_CACHE_HOME"):
        load_dataset("mnist")


# Memory


def test_the_number_of_images_at_once_follows_the_plan() -> None:
    plans = {name: make_plan(load_config(name)) for name in ("mnist", "cifar10", "bedroom")}
    large = 140 * 10**9
    chosen = {name: memory.batch_of(p, "cuda", lambda: large) for name, p in plans.items()}
    assert chosen == {"mnist": 1024, "cifar10": 512, "bedroom": 8}
    assert {memory.batch_of(plan, "cpu", lambda: large) for plan in plans.values()} == {64}
    assert memory.batch_of(plans["cifar10"], "cuda", lambda: 10**9) == 64  # half of it
    assert memory.batch_of(plans["bedroom"], "cuda", lambda: 0) == 1
    assert memory.batch_of(plans["cifar10"], "cuda", lambda: None) == 512  # not known


def test_a_batch_that_cannot_fit_is_refused_with_one_that_would(monkeypatch: Any) -> None:
    wide = ["model.ch=32", "model.ch_mult=[1,2,2]"]  # as measured
    plan = make_plan(load_config("mnist", wide))
    each = memory.activation_bytes(plan)
    assert 1.0e6 < each < 1.6e6  # a call took 1.57 MB an image in PyTorch, 2.36 in Jittor
    monkeypatch.setattr(memory, "available", lambda: 100 * each)
    memory.check_batch(plan, 100, "torch", "cpu")
    memory.check_batch(plan, 50, "jittor", "cpu")
    memory.check_batch(plan, 10**9, "torch", "cuda:0")
    with pytest.raises(UserError, match=r"101 images at once .* 100 would fit: lower --batch"):
        memory.check_batch(plan, 101, "torch", "cpu")
    with pytest.raises(UserError, match="50 would fit"):
        memory.check_batch(plan, 51, "jittor", "cpu")
    memory.check_batch(plan, 50, "torch", "cpu", guided=True)
    with pytest.raises(UserError, match=r"51 images at once .* 50 would fit"):  # not 102 and 100
        memory.check_batch(plan, 51, "torch", "cpu", guided=True)
    for backend, fits in (
        ("torch", 100),
        ("jittor", 50),
    ):  # one forward pass is all that is counted
        asked = {"option": "train.batch_size", "training": True}
        memory.check_batch(plan, fits, backend, "cpu", **asked)
        told = f"more than {fits} cannot fit: lower train.batch_size"
        with pytest.raises(UserError, match=rf"images at once need more than .*; {told}$"):
            memory.check_batch(plan, fits + 1, backend, "cpu", **asked)
    monkeypatch.setattr(memory, "available", lambda: 0)
    for backend in ("torch", "jittor"):  # both raise an error on a GPU, so that the count suffices
        memory.check_batch(plan, 100, backend, "cuda:0", lambda: 100 * each)
        with pytest.raises(UserError, match=r"GB are free on cuda:0; 100 would fit: lower --batch"):
            memory.check_batch(plan, 101, backend, "cuda:0", lambda: 100 * each)
    with pytest.raises(UserError, match="on cuda; not even one fits"):
        memory.check_batch(plan, 1, "torch", "cuda", lambda: 0)
    with pytest.raises(UserError, match="not even one fits"):
        memory.check_batch(plan, 1, "torch", "cpu")


def test_memory_that_is_left_follows_the_process_limit(monkeypatch: Any) -> None:
    import resource

    taken = memory.psutil.Process().memory_info().vms
    limits = (taken + 10**6, resource.RLIM_INFINITY)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: limits)
    assert memory.available() <= 10**7


@pytest.mark.parametrize(
    "error, expected, gpu",
    [
        (MemoryError("Unable to allocate 9 GiB"), True, False),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), True, True),
        (RuntimeError("CUDA error: out of memory"), True, True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True, True),
        (RuntimeError("[f 1127] Unable to alloc cuda device memory for size 17"), True, True),
        (RuntimeError("[f] GPU memory is overflow, please reduce your batch_size"), True, True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True, False),
        (RuntimeError("another fault"), False, False),
    ],
)
def test_a_framework_without_memory_is_one_line(
    error: Exception, expected: bool, gpu: bool, monkeypatch: Any, capsys: Any
) -> None:
    assert out_of_memory(error) is expected

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["diptych"])
    with pytest.raises(SystemExit if expected else RuntimeError):
        main(fail)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    where = "the GPU is out of memory" if gpu else "out of memory"
    assert said.startswith(f"diptych: {where}; lower --batch") is expected
    assert said.count("\n") == (1 if expected else 0)
