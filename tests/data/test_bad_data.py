"""Bad colour data: every fault is one line that names the file, and nothing is lost."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.data import load_dataset
from diptych.data.readers.cifar10 import PYTHON
from diptych.errors import UserError


def refused(source: str, **asked: Any) -> str:
    """The one line with which a data set is refused; its images are read as well."""
    with pytest.raises(UserError) as error:
        images = load_dataset(source, download=False, **asked).images
        for image in images:
            assert image.size
    said = str(error.value)
    assert "\n" not in said and error.value.exit_code == 2
    return said


# CIFAR-10


def test_a_truncated_archive(bare: Path) -> None:
    folder = photos.put_cifar10(bare / "d", packed=True)
    archive = folder / PYTHON.archive
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    said = refused("cifar10", data_dir=bare / "d")
    assert str(archive) in said and "the md5 is" in said
    photos.write_sums(folder)  # the right sum of a wrong file
    said = refused("cifar10", data_dir=bare / "d")
    assert str(archive) in said and "cut short or damaged" in said
    (folder / "MD5SUMS").unlink()
    said = refused("cifar10", data_dir=bare / "d")
    assert f"is cut short: {len(whole) // 2} bytes, expected 170498071" in said
    archive.write_bytes(whole)
    photos.write_sums(folder)
    assert len(load_dataset("cifar10", data_dir=bare / "d").images) == 40


@pytest.mark.parametrize("binary", [False, True], ids=["python", "binary"])
def test_a_wrong_sum(bare: Path, binary: bool) -> None:
    folder = photos.put_cifar10(bare / "d", binary=binary, sums=False)
    name = "data_batch_1.bin" if binary else "data_batch_1"
    held = (folder / name).read_bytes()
    kind = "sha256" if binary else "md5"
    found = hashlib.new(kind, held).hexdigest()
    said = refused("cifar10", data_dir=bare / "d")
    assert f"{folder / name}: the {kind} is {found}, expected " in said
    assert "Fetch it again" in said and "MD5SUMS" in said
    photos.write_sums(folder)
    (folder / name).write_bytes(held[:-1] + b"\0")
    assert "the md5 is" in refused("cifar10", data_dir=bare / "d")
    (folder / name).unlink()
    assert f"{folder / name}: not found; expected a file of CIFAR-10" in refused(
        "cifar10", data_dir=bare / "d"
    )
    (folder / name).write_bytes(held)
    (folder / "MD5SUMS").write_text("nonsense\n")
    assert "expected lines of a sum and a file name" in refused("cifar10", data_dir=bare / "d")
    (folder / "MD5SUMS").write_text("0123  other\n")
    assert "its checksum is not in" in refused("cifar10", data_dir=bare / "d")


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch /nowhere/opened",)


@pytest.mark.parametrize(
    "held, fault",
    [
        (b"", "Ran out of input"),
        (b"<html>", "not a batch"),
        (pickle.dumps({"data": np.zeros((3, 5), np.uint8), "labels": [0] * 3}), "(3, 5)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}), "a label is 10"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "for 1 labels"),
        (pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}), "float64"),
        (pickle.dumps([1, 2]), "not a batch"),
        (pickle.dumps(Hostile()), "system, which is not read"),
    ],
)
def test_a_batch_that_is_none(bare: Path, held: bytes, fault: str) -> None:
    """With the right sum, as from an owner who packed it wrongly or with intent."""
    folder = photos.put_cifar10(bare / "d", sums=False)
    (folder / "data_batch_3").write_bytes(held)
    photos.write_sums(folder)
    said = refused("cifar10", data_dir=bare / "d")
    assert str(folder / "data_batch_3") in said and fault in said


def test_binary_records_that_do_not_fit(bare: Path) -> None:
    folder = photos.put_cifar10(bare / "d", binary=True, sums=False)
    path = folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-7])
    photos.write_sums(folder)
    assert "are not whole records of 3073" in refused("cifar10", data_dir=bare / "d")


# CelebA


def test_celeba_damaged(bare: Path) -> None:
    folder = photos.put_celeba(bare / "d", 10)
    listed = folder / "list_eval_partition.txt"
    text = listed.read_text()
    asked: dict[str, Any] = {"image_size": 32, "data_dir": bare / "d"}
    (folder / "img_align_celeba/000003.jpg").unlink()
    said = refused("celeba", **asked)
    assert "1 of 8 pictures of the split are missing, the first is 000003.jpg" in said
    for bad in ("000001.jpg\n", "000001.jpg 7\n", "../x.jpg 0\n"):
        listed.write_text(text + bad)
        assert f"{listed}: line 11 is '{bad.strip()}'" in refused("celeba", **asked)
    listed.write_text("000005.jpg 2\n")
    assert "names no picture of the split 'train'" in refused("celeba", **asked)
    listed.unlink()
    assert f"{listed}: not found" in refused("celeba", **asked)


def test_a_celeba_zip_cut_short(bare: Path) -> None:
    folder = photos.put_celeba(bare / "d", 10, zipped=True)
    path = folder / "img_align_celeba.zip"
    whole = path.read_bytes()
    asked: dict[str, Any] = {"image_size": 32, "data_dir": bare / "d"}
    path.write_bytes(whole[:-100])
    assert f"{path}: is cut short or not a zip" in refused("celeba", **asked)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        offset = archive.getinfo("img_align_celeba/000002.jpg").header_offset
    path.write_bytes(whole[: offset + 200] + bytes(300) + whole[offset + 500 :])
    said = refused("celeba", **asked)
    assert f"{path}: img_align_celeba/000002.jpg is damaged" in said


# LMDB


def delete(path: Path, key: bytes) -> None:
    """Take one record out; LMDB opens a database once in a process, so readers must be gone."""
    import lmdb

    gc.collect()
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as records:
        records.delete(key)


def test_databases_that_miss_something(bare: Path) -> None:
    path = photos.put_ffhq(bare / "d", 10)
    asked: dict[str, Any] = {"data_dir": bare / "d"}
    assert "no pictures of 64x64, but of [32]" in refused("ffhq", image_size=64, **asked)
    delete(path, b"32-00004")
    said = refused("ffhq", image_size=32, **asked)
    assert f"{path}: 1 of 10 records are missing, the first is 32-00004" in said
    delete(path, b"length")
    assert "the record 'length' is missing" in refused("ffhq", image_size=32, **asked)


def test_a_database_cut_short_is_refused_before_it_ends_the_process(bare: Path) -> None:
    path = photos.put_lsun(bare / "d", "bedroom", 6) / "data.mdb"
    whole = path.read_bytes()
    asked: dict[str, Any] = {"image_size": 32, "data_dir": bare / "d"}
    path.write_bytes(whole[: len(whole) // 2])
    assert f"cut short: {len(whole) // 2} bytes, expected " in refused("lsun_bedroom", **asked)
    path.write_bytes(b"nothing of the kind" * 1000)
    assert "is not a sound LMDB database" in refused("lsun_bedroom", **asked)


def test_a_record_that_is_no_picture_is_named(bare: Path) -> None:
    import lmdb

    path = photos.put_lsun(bare / "d", "bedroom", 3)
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as records:
        records.put(b"zzz", b"not a picture")
    said = refused("lsun_bedroom", image_size=32, data_dir=bare / "d")
    assert f"{path}: record zzz: is not a JPEG, PNG, WebP" in said


def test_without_lmdb_the_package_is_named(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.put_lsun(bare / "d", "bedroom", 3)
    for package in ("lmdb", "datasets"):
        monkeypatch.setitem(sys.modules, package, None)
    said = refused("lsun_bedroom", image_size=32, data_dir=bare / "d")
    assert "lmdb is not installed; pip install 'diptych[lmdb]'" in said
    said = refused("hf:somewhere", image_size=32)
    assert said.startswith("hf:somewhere: datasets is not installed; pip install 'diptych[hf]'")


# npz


def test_bad_npz(bare: Path) -> None:
    path = bare / "x.npz"
    good = np.zeros((3, 8, 8, 3), np.uint8)
    assert "not found" in refused(f"npz:{path}")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"images": good.astype(np.float32)}, "'images' is float32 (3, 8, 8, 3); expected uint8"),
        ({"a": good, "b": good}, "expected an array 'images', found a, b"),
        ({"images": good, "labels": np.zeros(4, int)}, "'labels' is int64 (4,), expected 3"),
        ({"images": good[..., :2]}, "with C = 1 or 3"),
        ({"images": good[:0]}, "expected uint8 pixels"),
        ({"images": np.array([None])}, "'images' is object"),
        ({"images": good, "labels": np.array([0, -1, 2])}, "3 whole numbers of 0 or more"),
    ]
    for held, fault in cases:
        np.savez(path, **held)
        assert fault in refused(f"npz:{path}")
    np.savez(path, images=good)
    path.write_bytes(path.read_bytes()[:300])
    assert "not a readable array file" in refused(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as archive:  # a member that is no array
        archive.writestr("images", b"junk")
    assert "expected an array 'images'" in refused(f"npz:{path}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"junk")
    assert "not a readable array file" in refused(f"npz:{path}")
    bare_array = path.with_suffix(".npy")
    np.save(bare_array, good)
    assert load_dataset(str(bare_array)).images.shape == (3, 3, 8, 8)
