"""One grammar names a source for every verb."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.config.load import load_config
from diptych.data import load_configured, load_dataset
from diptych.data.readers.folder import sample_names
from diptych.data.sources.named import Opened, joined
from diptych.data.sources.spec import Spec, parse
from diptych.errors import UserError
from diptych.evaluation.images import open_images

HERE = Path("there")


@pytest.mark.parametrize(
    "text, spec",
    [
        ("mnist", Spec("mnist")),
        ("mnist:test", Spec("mnist", None, ("test",))),
        ("cifar10:train+test", Spec("cifar10", None, ("train", "test"))),
        ("lsun_bedroom:train", Spec("lsun_bedroom", None, ("train",))),
        ("folder:a:test", Spec("folder", Path("a:test"))),
        ("npz:x.npz", Spec("npz", Path("x.npz"))),
        ("packed:x", Spec("packed", Path("x"))),
        ("packed", Spec("packed")),
        ("hf:a/b", Spec("hf", Path("a/b"))),
        ("hf:a/b:test", Spec("hf", Path("a/b"), ("test",))),
    ],
)
def test_the_grammar(text: str, spec: Spec) -> None:
    assert parse(text) == spec


@pytest.mark.parametrize(
    "text, fault",
    [
        ("mnist:tset", "no split 'tset'; did you mean 'test'"),
        ("mnist:test+test", "no split 'test\\+test'"),
        ("minst:test", "minst:test: not found; no file and no data set is called 'minst'; did you"),
        ("", "the source is empty"),
        ("nowhere/at/all", "nowhere/at/all: not found; give a folder"),
        ("x\0y", "is not a usable path"),
        ("a" * 5000, "is not a usable path \\(File name too long\\)"),
        ("folder:" + "a" * 5000, "is not a usable path"),
    ],
)
def test_what_names_nothing_is_refused(bare: Path, text: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        load_dataset(text, image_size=16)
    with pytest.raises(UserError, match=fault):
        open_images(text)


def test_a_plain_path_is_read_by_what_is_there(bare: Path) -> None:
    root = photos.put_folder(bare, 4)
    one = load_dataset(f"folder:{root}", image_size=16)
    other = load_dataset(str(root), image_size=16)
    assert (one.sha256, one.name) == (other.sha256, other.name)
    np.savez(bare / "x.npz", images=np.zeros((3, 8, 8, 3), np.uint8))
    assert load_dataset(f"{bare}/x.npz").sha256 == load_dataset(f"npz:{bare}/x.npz").sha256
    picture = next(root.rglob("*.jpg"))
    assert load_dataset(str(picture), image_size=16).images.shape == (1, 3, 16, 16)
    for text in (str(root), f"folder:{root}"):
        assert open_images(text).count == 4
    assert open_images(f"npz:{bare}/x.npz").count == open_images(f"{bare}/x.npz").count == 3
    assert open_images(str(picture)).count == 1


def test_both_splits_are_one_after_the_other(bare: Path) -> None:
    photos.put_cifar10(bare)
    parts = [load_dataset("cifar10", split, data_dir=bare) for split in ("train", "test")]
    both = load_dataset("cifar10:train+test", data_dir=bare)
    assert (both.name, both.split, len(both.images)) == ("cifar10", "train+test", 48)
    assert np.array_equal(both.images, np.concatenate([part.images for part in parts]))
    assert both.labels is not None and parts[0].labels is not None
    assert np.array_equal(both.labels[:40], parts[0].labels)
    scored = open_images("cifar10:train+test", bare)
    assert (scored.count, scored.split, scored.identify()) == (48, "train+test", both.sha256)
    photos.put_celeba(bare, 10)
    faces = load_dataset("celeba:train+test", image_size=64, data_dir=bare)
    halves = [load_dataset(f"celeba:{s}", image_size=64, data_dir=bare) for s in ("train", "test")]
    assert np.array_equal(faces.images[:], np.concatenate([half.images[:] for half in halves]))
    assert len(set(faces.images.items.names)) == 10  # type: ignore[union-attr]


def test_what_two_splits_leave_out_is_added() -> None:
    images = np.zeros((1, 1, 2, 2), np.uint8)
    parts = [Opened(images, None, "x", None, {"hidden": k, "bad": 1}) for k in (2, 3)]
    assert joined(parts, ("train", "test")).left_out == {"hidden": 5, "bad": 2}


def test_a_config_names_its_split_once(bare: Path) -> None:
    photos.put_cifar10(bare)
    base = ["data.channels=3", "data.image_size=32"]
    config = load_config("tiny", [*base, "data.source=cifar10:test"])
    assert load_configured(config.data, bare).split == "test"
    config = load_config("tiny", [*base, "data.source=cifar10:train", "data.split=test"])
    with pytest.raises(UserError, match="names its split already"):
        load_configured(config.data, bare)


def test_a_name_that_is_a_folder_too_is_asked_back_where_no_split_is_said(bare: Path) -> None:
    Path("mnist-10k").mkdir()
    with pytest.raises(UserError, match=r"mnist-10k:train or .* \./mnist-10k for the other"):
        open_images("mnist-10k")
    assert load_dataset("mnist-10k").name == "mnist-10k"  # a config's split belongs to a data set
    assert open_images("mnist-10k:train").count == 10000


def test_pictures_that_need_a_crop_are_packed_before_scoring(bare: Path) -> None:
    with pytest.raises(UserError, match="diptych data prepare celeba --size 64"):
        open_images("celeba:test", bare)


def test_of_a_sample_folder_the_samples_alone_are_taken_by_all(bare: Path, capsys) -> None:
    folder = bare / "many" / "samples"
    folder.mkdir(parents=True)
    for name in ("00000.png", "00001.png", "grid.png"):
        Image.new("L", (8, 8), 9).save(folder / name)
    (folder / "manifest.json").write_text('{"solver": "ddim", "complete": true, "num": 2}')
    for place in (folder, folder.parent):
        assert len(load_dataset(f"folder:{place}").images) == 2 == open_images(place).count
    assert load_dataset(f"folder:{folder}").left_out == {"no sample": 1, "of another kind": 1}
    assert capsys.readouterr().err == ""  # for all that is left out is our own
    (folder.parent / "notes.txt").touch()
    load_dataset(f"folder:{folder.parent}")
    assert "2 pictures; left out: files of other kinds (1)\n" in capsys.readouterr().err
    assert sample_names(folder) == {"00000.png", "00001.png"} and sample_names(bare) is None
    (folder / "manifest.json").write_text(
        '{"solver": "ddim", "complete": true, "num": 99999999999}'
    )
    with pytest.raises(UserError, match="speaks of 99999999999 images"):
        load_dataset(f"folder:{folder}")
