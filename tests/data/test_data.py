"""Data: the readers return what the files hold, and refuse every damaged file in one line."""

from __future__ import annotations

import gzip
import re
import struct
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_files import NAMES, bare_machine, idx, put  # noqa: F401  (a fixture)
from diptych.config.load import DataConfig
from diptych.data import SOURCES, find, load_configured, load_dataset, read_idx, resize, shrink
from diptych.errors import MachineError, UserError


def refused(*parts: str) -> re.Pattern[str]:
    """One line that holds all the parts in this order."""
    return re.compile("^" + ".*".join(["", *map(re.escape, parts), ""]) + "$")


# What is read


def test_the_packaged_images_are_mnists_own():
    data = load_dataset("mnist-10k")
    assert data.images.shape == (10000, 1, 28, 28) and data.images.dtype == np.uint8
    assert data.labels.shape == (10000,) and data.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(data.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert data.sha256 == SOURCES["mnist"].identities["test"]
    assert data.images.mean() / 255 == pytest.approx(0.13251, abs=1e-5)
    assert not data.images.flags.writeable and not data.labels.flags.writeable


def test_the_package_states_the_licence_of_the_images():
    located = find("mnist-10k")
    assert located is not None
    text = (located.images.parent / "LICENSE").read_text()
    for file in SOURCES["mnist-10k"].splits["train"]:
        assert file.sha256 in text and file.name in text
    assert "CC BY-SA 3.0" in text and "Yann LeCun" in text


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4)), st.booleans())
def test_idx_round_trip(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    assert np.array_equal(read_idx(path, array.ndim), array)


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 2), *[st.just(28)] * 2)),
    st.sampled_from([1, 2, 4, 7, 14, 28]),
)
def test_shrink_is_the_rounded_mean_of_each_block(images, size):
    k = 28 // size
    blocks = images.reshape(*images.shape[:2], size, k, size, k).astype(np.float64)
    assert np.array_equal(shrink(images, size), np.floor(blocks.mean((3, 5)) + 0.5))


def test_shrink_holds_few_sums_at_once(monkeypatch):
    images = np.random.default_rng(1).integers(0, 256, (10, 1, 8, 8), np.uint8)
    wanted = shrink(images, 4)
    monkeypatch.setattr(resize, "AT_ONCE", 3)
    assert np.array_equal(shrink(images, 4), wanted)


def test_shrink_keeps_height_and_width_apart():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 12), np.uint8)
    blocks = images.reshape(2, 3, 4, 2, 6, 2).astype(np.float64)
    assert np.array_equal(shrink(images, (4, 6)), np.floor(blocks.mean((3, 5)) + 0.5))
    assert shrink(images, (8, 12)) is images
    for size in ((6, 4), (4, 12), (8, 6), 4, (16, 24)):  # turned, stretched, cut, enlarged
        with pytest.raises(UserError, match=r"from 8x12 images .* give one of 4x6, 8x12$"):
            shrink(images, size)


def test_shrink_rounds_half_up_and_does_not_overflow():
    block = np.array([[0, 0], [1, 1]], np.uint8).reshape(1, 1, 2, 2)
    assert shrink(block, 1).item() == 1
    for size in (22, 24, 28, 512):  # both sides of the change from 16- to 32-bit sums
        assert shrink(np.full((1, 1, size, size), 255, np.uint8), 1).item() == 255


def test_the_identity_follows_the_pixels_and_not_the_packing(bare):
    packed = load_dataset("mnist", data_dir=put(bare / "a"))
    raw = load_dataset("mnist", data_dir=put(bare / "b", packed=False))
    assert packed.sha256 == raw.sha256 != load_dataset("mnist", data_dir=put(bare / "c", 6)).sha256
    small = load_dataset("mnist", data_dir=bare / "a", image_size=14)
    assert small.images.shape == (5, 1, 14, 14) and small.sha256 != packed.sha256
    assert load_dataset("mnist", data_dir=bare / "a", image_size=28).sha256 == packed.sha256


# Where it is looked for


def test_search_order(bare, monkeypatch):
    """Each place added comes before those added earlier."""
    work, cache = bare / "work", bare / "XDG_CACHE_HOME" / "diptych" / "data"
    assert find("mnist") is None
    places = [put(bare / "system"), put(work / "data/MNIST/raw", 6), put(cache / "mnist", 7)]
    monkeypatch.setitem(SOURCES, "mnist", replace(SOURCES["mnist"], places=(places[0],)))
    for place in reversed(places):
        assert load_dataset("mnist").origin == str(place)
        (place / f"{NAMES[1]}.gz").unlink()  # half a data set is none
    assert find("mnist") is None
    put(bare / "env" / "mnist", 8)
    monkeypatch.setenv("DIPTYCH_DATA", str(bare / "env"))
    assert load_dataset("mnist").origin == f"{bare / 'env/mnist'} (DIPTYCH_DATA)"
    put(bare / "given", 9, packed=False)
    given = load_dataset("mnist", data_dir=bare / "given")
    assert given.origin == f"{bare / 'given'} (--data)" and len(given.images) == 9


@pytest.mark.parametrize("by", ["--data", "DIPTYCH_DATA"])
def test_a_named_folder_is_never_replaced_by_another_copy(bare, monkeypatch, by):
    put(bare / "XDG_CACHE_HOME" / "diptych" / "data" / "mnist")
    (bare / "empty").mkdir()
    (bare / "file").touch()
    for name, fault in [
        ("empty", "holds no"),
        ("gone", "does not exist"),
        ("file", "not a folder"),
    ]:
        if by == "DIPTYCH_DATA":
            monkeypatch.setenv(by, str(bare / name))
        with pytest.raises(UserError, match=refused(by, str(bare / name), fault, "mnist")):
            load_dataset("mnist", data_dir=bare / name if by == "--data" else None)


def test_unknown_names_and_sizes_are_refused(bare):
    with pytest.raises(UserError, match="'mnsit'; did you mean 'mnist'"):
        load_dataset("mnsit")
    with pytest.raises(UserError, match="no split 'tran'; did you mean 'train'"):
        load_dataset("mnist", "tran")
    with pytest.raises(
        UserError, match=r"mnist-10k has the split 'train' only.*Use the source mnist"
    ):
        load_dataset("mnist-10k", "test")
    with pytest.raises(UserError, match=r"mnist-10k travels in the package.*Leave --data out"):
        load_dataset("mnist-10k", data_dir=bare)
    for size in (0, -14, 13, 29, 56):
        with pytest.raises(UserError, match=refused(f"size {size} ", "give one of 4, 7, 14, 28")):
            load_dataset("mnist-10k", image_size=size)
    with pytest.raises(UserError, match="size 14x28 cannot be made from 28x28 images"):
        load_dataset("mnist-10k", image_size=(14, 28))


def test_a_config_of_other_channels_is_refused_with_advice_where_it_can_be_changed():
    config = DataConfig(source="mnist-10k", channels=3)
    with pytest.raises(UserError, match=r"has 1$"):
        load_configured(config)
    with pytest.raises(UserError, match=r"has 1; use --set data\.channels=1$"):
        load_configured(config, settable=True)


def test_one_data_set_in_the_place_of_another_is_refused(bare):
    """The files of MNIST and Fashion-MNIST bear the same names: only the content tells."""
    located = find("mnist-10k")
    assert located is not None
    for path, name in zip((located.images, located.labels), NAMES, strict=True):
        (bare / f"{name}.gz").write_bytes(path.read_bytes())
    for source in ("mnist", "fashion_mnist"):
        said = refused(NAMES[0], "images of mnist (test)", f"expected {source} (train)")
        with pytest.raises(UserError, match=said):
            load_dataset(source, data_dir=bare)


def test_importing_the_data_loads_nothing_for_downloads():
    """`diptych --help` must stay fast."""
    code = "import sys, diptych.data; print({'pooch', 'requests', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Bad files


GOOD = idx(np.zeros((5, 28, 28), np.uint8))


BAD = {
    "empty": (b"", "is empty (0 bytes)"),
    "gzip cut": (gzip.compress(GOOD)[:-30], "gzip data are cut short"),
    "gzip header cut": (gzip.compress(GOOD)[:5], "gzip data are"),
    "gzip damaged": (gzip.compress(GOOD)[:12] + b"\xff" * 30, "gzip data are damaged"),
    "gzip of nothing": (gzip.compress(b""), "begins with"),
    "cut": (GOOD[:-1], "cut short: 3919 bytes after the header, expected 3920 for 5 x 28 x 28"),
    "cut, then gzip": (gzip.compress(GOOD[:-1]), "cut short: 3919"),
    "one byte too many": (GOOD + b"!", "followed by bytes that do not belong to it: 3921 bytes"),
    "header cut": (GOOD[:9], "header is cut short: 9 bytes found, expected 16"),
    "one byte": (b"\x00", "begins with 00 (not an IDX file), expected 00000803"),
    "PNG": (b"\x89PNG....", "begins with 89504e47 (not an IDX file), expected 00000803"),
    "HTML": (b"<!doctype html>", "a web page, not data"),
    "labels": (idx(np.zeros(5, np.uint8)), "IDX of 1 dimensions), expected 00000803"),
    "floats": (idx(np.zeros((5, 28, 28), ">f4"), 13), "type 0x0d, not unsigned bytes"),
    "no images": (idx(np.zeros((0, 28, 28), np.uint8)), "header says 0 x 28 x 28"),
    "huge": (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3), f"expected {(2**32 - 1) ** 3}"),
    "another size": (idx(np.zeros((5, 32, 32), np.uint8)), "images are 32x32, mnist has 28x28"),
    "another count": (idx(np.zeros((6, 28, 28), np.uint8)), "5 labels for the 6 images"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_bad_files_are_refused_by_name(bare, case, suffix):
    content, fault = BAD[case]
    folder = put(bare / "d", packed=bool(suffix))
    (folder / f"{NAMES[0]}{suffix}").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load_dataset("mnist", data_dir=folder)
    text = str(caught.value)
    assert fault in text and str(folder) in text and "\n" not in text
    assert re.search(r"Replace|Put", text)


def test_bad_labels_folders_and_missing_halves(bare):
    folder = put(bare / "d")
    labels = folder / f"{NAMES[1]}.gz"
    labels.write_bytes(idx(np.full(5, 10, np.uint8)))
    with pytest.raises(UserError, match=refused(labels.name, "a label is 10, expected 0 to 9")):
        load_dataset("mnist", data_dir=folder)
    labels.unlink()
    with pytest.raises(UserError, match=refused("holds no mnist (train)", labels.name)):
        load_dataset("mnist", data_dir=folder)
    labels.mkdir()
    with pytest.raises(UserError, match=refused(str(labels), "is a folder; expected an IDX file")):
        load_dataset("mnist", data_dir=folder)
    with pytest.raises(UserError, match="none: not found; expected an IDX file"):
        read_idx(folder / "none", 1)


def test_a_file_that_the_disk_does_not_give_is_the_machines_fault(bare, monkeypatch):
    """By a stand-in for a failing disk."""
    folder = put(bare / "d")

    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("diptych.files.paths.os.open", failing)
    with pytest.raises(MachineError, match=refused(NAMES[0], "Input/output error")):
        load_dataset("mnist", data_dir=folder)


# The real thing, where this machine has it


@pytest.mark.parametrize("source", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("split, count", [("train", 60000), ("test", 10000)])
def test_the_full_data_are_the_published_ones(source, split, count):
    try:
        located = find(source, split)
    except UserError as error:  # DIPTYCH_DATA is for the other one
        pytest.skip(str(error))
    if located is None:
        pytest.skip(f"{source} is not on this machine; set DIPTYCH_DATA to run this")
    began = time.process_time()
    data = load_dataset(source, split)
    seconds = time.process_time() - began
    assert data.images.shape == (count, 1, 28, 28)
    assert data.sha256 == SOURCES[source].identities[split]
    assert np.bincount(data.labels).size == 10
    assert seconds < 5  # 0.2 s on a quiet machine
