"""Colour data sets in the layouts of their authors, made from real photographs."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.data import Decoded, load_dataset
from diptych.data.decoded import Images
from diptych.errors import UserError


def whole(images: Images) -> np.ndarray:
    return np.asarray(images[:])


# CIFAR-10


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "archive"])
@pytest.mark.parametrize("binary", [False, True], ids=["python", "binary"])
def test_cifar10_in_every_form(bare: Path, binary: bool, packed: bool) -> None:
    photos.put_cifar10(bare / "d", binary=binary, packed=packed)
    expected = photos.pixels(photos.crops(48, 32, 32))
    for split, rows in (("train", slice(0, 40)), ("test", slice(40, 48))):
        data = load_dataset("cifar10", split, data_dir=bare / "d", channels=3)
        assert np.array_equal(data.images[:], expected[rows])
        assert data.labels is not None and data.labels.dtype == np.int64
        assert data.labels.tolist() == [k % 10 for k in range(48)][rows]
        assert isinstance(data.images, np.ndarray)
        assert not data.images.flags.writeable and not data.labels.flags.writeable


def test_cifar10_is_found_where_the_official_code_keeps_it(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`EXP/datasets/cifar10` and `EXP/datasets/cifar10_test` both, and the archive by itself."""
    folder = photos.put_cifar10(bare / "exp/datasets", packed=True)
    train = load_dataset("cifar10", data_dir=bare / "exp/datasets")
    test = load_dataset("cifar10", "test", data_dir=bare / "exp/datasets")
    (bare / "exp/datasets/cifar10_test").mkdir()
    for path in folder.iterdir():
        path.rename(bare / "exp/datasets/cifar10_test" / path.name)
    monkeypatch.setenv("DIPTYCH_DATA", str(bare / "exp/datasets"))
    assert load_dataset("cifar10", "test").sha256 == test.sha256 != train.sha256
    archive = bare / "exp/datasets/cifar10_test/cifar-10-python.tar.gz"
    assert load_dataset("cifar10", data_dir=archive).sha256 == train.sha256


def test_cifar10_at_half_the_size(bare: Path) -> None:
    photos.put_cifar10(bare / "d")
    data = load_dataset("cifar10", image_size=16, data_dir=bare / "d")
    full = load_dataset("cifar10", data_dir=bare / "d")
    assert data.images.shape == (40, 3, 16, 16) and data.sha256 != full.sha256


# CelebA, LSUN, FFHQ


@pytest.mark.parametrize("zipped", [False, True], ids=["files", "zip"])
def test_celeba_has_the_official_crop_and_split(bare: Path, zipped: bool) -> None:
    """Rows 57 to 184 and columns 25 to 152, then Pillow's bilinear resize."""
    folder = photos.put_celeba(bare / "d")
    held = {path.name: path.read_bytes() for path in (folder / "img_align_celeba").iterdir()}
    if zipped:
        photos.put_celeba(bare / "d", zipped=True)
    for split, rest in (("train", (1, 2, 3, 4)), ("test", (0,))):
        data = load_dataset("celeba", split, image_size=64, data_dir=bare / "d")
        names = sorted(name for name in held if int(name[:6]) % 5 in rest)
        assert isinstance(data.images, Decoded) and list(data.images.items.names) == names
        assert data.labels is None and len(data.images) == len(names)
        for k, name in enumerate(names):
            rows = np.asarray(Image.open(io.BytesIO(held[name])))[57:185, 25:153]
            small = Image.fromarray(rows).resize((64, 64), Image.Resampling.BILINEAR)
            assert np.array_equal(data.images[k], np.asarray(small).transpose(2, 0, 1))


def test_lsun_has_the_official_resize_and_middle_square(bare: Path) -> None:
    import lmdb

    path = photos.put_lsun(bare / "d", count=8)
    with lmdb.open(str(path), readonly=True, lock=False) as database, database.begin() as records:
        held = [bytes(value) for _, value in records.cursor()]
    data = load_dataset("lsun_church_outdoor", image_size=48, data_dir=bare / "d")
    assert len(held) == len(data.images) == 8
    for k, value in enumerate(held):
        picture = Image.open(io.BytesIO(value)).convert("RGB")
        w, h = picture.size
        to = (48, int(48 * h / w)) if w <= h else (int(48 * w / h), 48)
        big = np.asarray(picture.resize(to, Image.Resampling.BILINEAR))
        top, left = round((to[1] - 48) / 2), round((to[0] - 48) / 2)
        square = big[top : top + 48, left : left + 48]
        assert np.array_equal(data.images[k], square.transpose(2, 0, 1))


def test_ffhq_has_the_official_shuffled_split(bare: Path) -> None:
    photos.put_ffhq(bare / "d", count=20)
    pictures = photos.pixels(photos.crops(20, 32, 32, seed=3))
    order = list(range(20))
    np.random.RandomState(2019).shuffle(order)
    for split, chosen in (("train", order[:18]), ("test", order[18:])):
        data = load_dataset("ffhq", split, image_size=32, data_dir=bare / "d")
        assert np.array_equal(whole(data.images), pictures[chosen])
    folder = bare / "e/ffhq"
    folder.mkdir(parents=True)
    for k, picture in enumerate(photos.crops(20, 32, 32, seed=3)):
        picture.save(folder / f"{k:05d}.png")
    data = load_dataset("ffhq", image_size=32, data_dir=bare / "e")
    assert np.array_equal(whole(data.images), pictures[order[:18]])


# The user's own


def test_a_folder_is_searched_with_its_sub_folders(bare: Path) -> None:
    root = photos.put_folder(bare, 12)
    (root / "left/notes.txt").write_text("no picture")
    (root / ".hidden.jpg").write_bytes(b"")
    (root / "left/again").symlink_to(root)
    data = load_dataset(f"folder:{root}", image_size=32)
    assert isinstance(data.images, Decoded)
    names = list(data.images.items.names)
    assert names == sorted(names) and len(names) == 12 and data.images.shape == (12, 3, 32, 32)
    assert {Path(name).suffix for name in names} == {".jpg", ".PNG", ".webp", ".jpeg"}
    assert data.labels is not None and data.labels.tolist() == [0] * 6 + [1] * 6
    other = load_dataset("folder", image_size=32, data_dir=root)
    assert other.sha256 == data.sha256 and np.array_equal(whole(other.images), whole(data.images))
    assert load_dataset("folder", image_size=16, data_dir=root).sha256 != data.sha256
    (root / "left/again").unlink()
    flat = load_dataset(f"folder:{root}/left", image_size=32)
    assert flat.labels is None and len(flat.images) == 6
    grey = load_dataset(f"folder:{root}", image_size=32, channels=1)
    assert grey.images.shape == (12, 1, 32, 32)


@pytest.mark.parametrize("order", ["NHWC", "NCHW", "NHW"])
def test_npz(bare: Path, order: str) -> None:
    images = photos.pixels(photos.crops(5, 12, 12))
    held = {"NHWC": images.transpose(0, 2, 3, 1), "NCHW": images, "NHW": images[:, 0]}[order]
    np.savez(bare / "own.npz", images=held, labels=np.arange(5, dtype=np.uint8))
    data = load_dataset(f"npz:{bare / 'own.npz'}")
    assert np.array_equal(data.images[:], images[:, :1] if order == "NHW" else images)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 2, 3, 4]
    np.savez(bare / "adm.npz", held)
    assert load_dataset("npz", data_dir=bare / "adm.npz").labels is None


def test_what_needs_a_path_says_so(bare: Path) -> None:
    for kind in ("folder", "npz", "packed", "hf"):
        with pytest.raises(UserError, match=f"source '{kind}' needs a path: .*{kind}:PATH"):
            load_dataset(kind)
        with pytest.raises(UserError, match="names its path already; leave --data out"):
            load_dataset(f"{kind}:x", data_dir=bare)
    with pytest.raises(UserError, match="no data set is called 'cifar'; did you mean 'cifar10'"):
        load_dataset("cifar")
    with pytest.raises(UserError, match="split 'train' only"):
        load_dataset("folder:x", "test")
    with pytest.raises(UserError, match="cifar10: there is no split 'valid'"):
        load_dataset("cifar10", "valid")


@pytest.mark.parametrize(
    "source, wanted",
    [
        ("celeba", "img_align_celeba/ (or img_align_celeba.zip) and list_eval_partition.txt"),
        ("lsun_bedroom", "bedroom_train_lmdb"),
        ("ffhq", "data.mdb"),
        ("cifar10", "cifar-10-python.tar.gz"),
    ],
)
def test_what_is_not_here_says_what_to_put_where(bare: Path, source: str, wanted: str) -> None:
    cache = bare / "XDG_CACHE_HOME" / "diptych" / "data" / source
    with pytest.raises(UserError) as error:
        load_dataset(source, image_size=32, download=False)
    said = str(error.value)
    assert wanted in said and str(cache) in said and "--data DATA" in said and "\n" not in said
    (bare / "empty").mkdir()
    with pytest.raises(UserError) as error:
        load_dataset(source, image_size=32, data_dir=bare / "empty")
    said = str(error.value)
    assert said.startswith(f"--data {bare / 'empty'}: holds no {source}; expected")
    assert "\n" not in said


# Any index, any number of threads


def test_decoded_images_are_read_like_an_array(bare: Path) -> None:
    root = photos.put_folder(bare, 12)
    images = load_dataset(f"folder:{root}", image_size=16).images
    assert isinstance(images, Decoded)
    everything = whole(images)
    alone = Decoded(images.items, images.recipe, workers=1)
    chosen = np.array([7, 0, 7, 11])
    for one in (images, alone):
        assert np.array_equal(one[chosen], everything[chosen])
        assert np.array_equal(one[3:9:2], everything[3:9:2])
        assert np.array_equal(one[-1], everything[-1])
        assert np.array_equal(np.stack(list(one)), everything)
        assert one[np.array([], np.int64)].shape == (0, 3, 16, 16)
    with pytest.raises(IndexError):
        images[12]
