"""Packing: the same pixels in one mapped file, complete or not at all after any interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.data import Decoded, load_dataset
from diptych.data.packed import write as pack
from diptych.data.packed.job import Packing
from diptych.data.packed.write import prepare
from diptych.errors import MachineError, UserError
from diptych.files import hold, read_json


def packing(source: str, out: Path, **options: Any) -> Packing:
    asked = {key: options.pop(key) for key in ("image_size", "data_dir") if key in options}
    data = load_dataset(source, **asked)
    crop = data.images.recipe.crop if isinstance(data.images, Decoded) else "none"
    return Packing(data, out, crop, progress=False, **options)


@pytest.fixture(name="root")
def folder_of_pictures(bare: Path) -> Path:
    return photos.put_folder(bare, 10)


def left(out: Path) -> set[str]:
    """Files that a packing leaves beside the folder of pictures."""
    return {
        path.name for path in out.parent.iterdir() if path.name.lstrip(".").startswith(out.name)
    }


def test_packed_pixels_are_the_decoded_ones(root: Path) -> None:
    out = root.parent / "out.npy"
    index = prepare(packing(f"folder:{root}", out, image_size=24))
    live = load_dataset(f"folder:{root}", image_size=24)
    packed = load_dataset(f"packed:{out}", image_size=24)
    assert isinstance(packed.images, np.ndarray)
    assert np.array_equal(packed.images, live.images[:])
    assert packed.labels is not None and live.labels is not None
    assert np.array_equal(packed.labels, live.labels)
    assert packed.images.base is not None and not packed.images.flags.writeable
    rows = np.load(out, mmap_mode="r")
    assert rows.shape == (10, 24, 24, 3) and isinstance(rows, np.memmap)
    assert isinstance(live.images, Decoded) and index["names"] == list(live.images.items.names)
    assert (index["crop"], index["skipped"], index["split"]) == ("center", [], "train")
    with Image.open(out.with_name("out.npy.png")) as grid:
        assert grid.size == (4 * 26 + 2, 3 * 26 + 2)
    assert left(out) == {"out.npy", "out.npy.json", "out.npy.png"}
    half = load_dataset(f"packed:{out}", image_size=12)
    assert half.images.shape == (10, 3, 12, 12) and half.sha256 != packed.sha256


def test_pictures_that_are_no_squares_are_packed_alike(root: Path) -> None:
    out = root.parent / "wide.npy"
    index = prepare(packing(f"folder:{root}", out, image_size=(16, 24)))
    live = load_dataset(f"folder:{root}", image_size=(16, 24))
    packed = load_dataset(f"packed:{out}", image_size=(16, 24))
    assert index["shape"] == [10, 16, 24, 3] and live.images.shape == (10, 3, 16, 24)
    assert np.array_equal(packed.images[:], live.images[:])
    assert live.sha256 != load_dataset(f"folder:{root}", image_size=(24, 16)).sha256
    with Image.open(out.with_name("wide.npy.png")) as grid:
        assert grid.size == (4 * 26 + 2, 3 * 18 + 2)
    assert load_dataset(f"packed:{out}", image_size=(8, 12)).images.shape == (10, 3, 8, 12)


def test_the_identity_is_of_the_pixels_however_they_lie(bare: Path) -> None:
    photos.put_cifar10(bare / "d")
    index = prepare(packing("cifar10", bare / "c.npy", data_dir=bare / "d"))
    source = load_dataset("cifar10", data_dir=bare / "d")
    packed = load_dataset("packed", data_dir=bare / "c.npy")
    assert source.sha256 == packed.sha256 == index["sha256"] == index["input"]
    assert np.array_equal(source.images[:], packed.images[:])
    mnist = prepare(packing("mnist-10k", bare / "m.npy", image_size=14))
    assert mnist["sha256"] == load_dataset("mnist-10k", image_size=14).sha256
    assert mnist["shape"] == [10000, 14, 14, 1]


KILLED = """
import os, signal, sys
from diptych.data import decoded, load_dataset
from diptych.data.packed import job, write
write.ROWS = 2
whole, made = decoded.Decoded.one, []
def one(self, index):
    made.append(index)
    if len(made) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, index)
decoded.Decoded.one = one
data = load_dataset("folder:" + sys.argv[1], image_size=24)
from pathlib import Path
write.prepare(job.Packing(data, Path(sys.argv[2]), "center", workers=1, progress=False))
"""


def test_a_killed_packing_goes_on_and_gives_the_same_bytes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = root.parent / "whole.npy", root.parent / "out.npy"
    prepare(packing(f"folder:{root}", whole, image_size=24))
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), str(out)], timeout=120)
    assert done.returncode == -signal.SIGKILL and left(out) == {".out.npy.partial"}
    state = (out.parent / ".out.npy.partial/state").read_bytes()
    assert state == bytes([1] * 4 + [0] * 6)
    read: list[int] = []
    one = Decoded.one
    monkeypatch.setattr(Decoded, "one", lambda self, k: (read.append(k), one(self, k))[1])
    prepare(packing(f"folder:{root}", out, image_size=24))
    assert sorted(read) == [4, 5, 6, 7, 8, 9]
    assert out.read_bytes() == whole.read_bytes()
    a, b = (read_json(path.with_name(f"{path.name}.json")) for path in (whole, out))
    assert a == b and left(out) == {"out.npy", "out.npy.json", "out.npy.png"}


def test_a_bad_picture_stops_it_or_is_left_out(root: Path) -> None:
    out = root.parent / "out.npy"
    bad = root / "left/003.PNG"
    bad = next(root.glob("left/003*"))
    sound = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(UserError) as error:
        prepare(packing(f"folder:{root}", out, image_size=24))
    assert str(error.value).startswith(f"{bad}: is empty") and "--skip-bad" in str(error.value)
    assert left(out) == {".out.npy.partial"}
    index = prepare(packing(f"folder:{root}", out, image_size=24, skip_bad=True))
    data, live = load_dataset(f"packed:{out}"), load_dataset(f"folder:{root}", image_size=24)
    k = index["skipped"][0]["index"]
    assert [row["name"] for row in index["skipped"]] == [f"left/{bad.name}"]
    assert "is empty (0 bytes)" in index["skipped"][0]["reason"]
    good = np.array([i for i in range(10) if i != k])
    assert np.array_equal(data.images, live.images[good])
    assert live.labels is not None and data.labels is not None
    assert np.array_equal(data.labels, live.labels[good]) and len(index["names"]) == 9
    bad.write_bytes(sound)
    with pytest.raises(UserError, match="is there already, from other data"):
        prepare(packing(f"folder:{root}", out, image_size=24))
    assert np.array_equal(load_dataset(f"packed:{out}").images, data.images)


def test_a_repaired_picture_is_taken_in_and_the_rest_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bad = root.parent / "out.npy", next(root.glob("right/004*"))
    sound = bad.read_bytes()
    bad.write_bytes(sound[:50])
    with pytest.raises(UserError, match=r"right/004"):
        prepare(packing(f"folder:{root}", out, image_size=24))
    bad.write_bytes(sound)
    read: list[int] = []
    one = Decoded.one
    monkeypatch.setattr(Decoded, "one", lambda self, k: (read.append(k), one(self, k))[1])
    prepare(packing(f"folder:{root}", out, image_size=24))
    assert len(read) == 1
    monkeypatch.undo()
    live = load_dataset(f"folder:{root}", image_size=24)
    assert np.array_equal(load_dataset(f"packed:{out}").images, live.images[:])


def test_nothing_left_another_size_and_a_second_process(root: Path) -> None:
    out = root.parent / "out.npy"
    for path in root.rglob("*.*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no picture is left to pack; all 10 cannot be used"):
        prepare(packing(f"folder:{root}", out, image_size=24, skip_bad=True))
    assert not out.exists()
    one = packing(f"folder:{root}", out, image_size=12)
    with hold(one.folder), pytest.raises(UserError, match="another process is at work"):
        prepare(one)


def test_a_full_disk_keeps_what_is_packed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, count = root.parent / "out.npy", iter(range(100))
    monkeypatch.setattr(pack, "ROWS", 2)
    write = os.pwrite

    def full(file: int, data: bytes, at: int) -> int:
        if next(count) == 8:  # rows 0 to 3 and their marks are written, then two more rows
            raise OSError(28, "No space left on device")
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(MachineError, match="disk is full; free some space and resume"):
        prepare(packing(f"folder:{root}", out, image_size=24))
    monkeypatch.undo()
    assert (out.parent / ".out.npy.partial/state").read_bytes() == bytes([1] * 4 + [0] * 6)
    prepare(packing(f"folder:{root}", out, image_size=24))
    live = load_dataset(f"folder:{root}", image_size=24)
    assert np.array_equal(load_dataset(f"packed:{out}").images, live.images[:])


def test_damaged_packed_files_are_refused(root: Path) -> None:
    out = root.parent / "out.npy"
    index = prepare(packing(f"folder:{root}", out, image_size=24))
    kept, held = out.read_bytes(), out.with_name("out.npy.json")

    def refused() -> str:
        with pytest.raises(UserError) as error:
            load_dataset(f"packed:{out}")
        assert "\n" not in str(error.value)
        return str(error.value)

    out.write_bytes(kept[:-1])
    assert f"{out}: is cut short or damaged" in refused()
    out.write_bytes(b"")
    assert f"{out}: is cut short or damaged" in refused()
    np.save(out, np.zeros((10, 24, 24, 1), np.uint8))
    assert "its index says uint8 (10, 24, 24, 3)" in refused()
    out.write_bytes(kept)
    for wrong in ({"names": []}, {"format": "2"}, {"sha256": None}, {"shape": [10]}):
        held.write_text(json.dumps({**index, **wrong}))
        assert "is not the index of a packed file" in refused()
    held.write_text(json.dumps({**index, "labels": [0]}))
    assert "1 labels for 10 images" in refused()
    held.unlink()
    assert f"{out}: has no index out.npy.json beside it. Pack it again" in refused()
    out.unlink()
    assert f"{out}: not found; expected a file that diptych data prepare made" in refused()


def test_other_labels_are_other_data(bare: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    source, out = bare / "own.npz", bare / "out.npy"
    np.savez(source, images=pixels, labels=[0, 0, 1, 1, 2, 2])
    first = packing(f"npz:{source}", out)
    made = prepare(first)
    assert prepare(packing(f"npz:{source}", out)) == made
    old = {key: value for key, value in made.items() if key != "labels_sha256"}
    pack.index_path(out).write_text(json.dumps(old))  # of an older version
    assert prepare(packing(f"npz:{source}", out)) == old
    np.savez(source, images=pixels, labels=[0, 0, 1, 1, 2, 0])
    for index in (old, made):
        pack.index_path(out).write_text(json.dumps(index))
        with pytest.raises(UserError, match="from other data; replace it with --overwrite"):
            prepare(packing(f"npz:{source}", out))
    again = prepare(packing(f"npz:{source}", out), overwrite=True)
    assert again["labels"] == [0, 0, 1, 1, 2, 0]


def test_an_old_file_never_stands_beside_a_new_index(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = bare / "own.npz", bare / "out.npy"
    for value in (1, 2):
        np.savez(source, images=np.full((6, 8, 8, 3), value, np.uint8))
        if value == 1:
            prepare(packing(f"npz:{source}", out))

    replace = os.replace

    def killed(source: Any, target: Any) -> None:
        if Path(target) == out:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(pack.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(packing(f"npz:{source}", out), overwrite=True)
    monkeypatch.undo()
    prepare(packing(f"npz:{source}", out))
    assert (load_dataset(f"packed:{out}").images == 2).all()
