"""Pictures of every kind are read as pixels or refused by name; streams are lazy and exact."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from diptych.data.picture import read_pixels
from diptych.errors import UserError
from diptych.evaluation.images import open_images

RANDOM = np.random.RandomState(0)
GREY = RANDOM.randint(0, 256, (9, 7), dtype=np.uint8)
COLOUR = RANDOM.randint(0, 256, (9, 7, 3), dtype=np.uint8)


def read_image(path):
    return read_pixels(path.read_bytes(), str(path))


def alpha(value):
    return Image.fromarray(np.dstack([COLOUR, np.full((9, 7), value, np.uint8)]))


TAKEN = {
    "grey": (Image.fromarray(GREY), GREY[..., None]),
    "colour": (Image.fromarray(COLOUR), COLOUR),
    "bilevel": (Image.fromarray(GREY > 99), np.where(GREY > 99, 255, 0)[..., None]),
    "opaque": (alpha(255), COLOUR),
    "transparent": (alpha(0), np.full((9, 7, 3), 255, np.uint8)),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_pictures_are_read_to_the_pixel(tmp_path, kind):
    picture, expected = TAKEN[kind]
    picture.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png")
    assert found.dtype == np.uint8 and np.array_equal(found, expected)


def test_a_palette_gives_its_colours(tmp_path):
    picture = Image.fromarray(COLOUR).quantize(200)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def png16_colour(path):
    """A 16-bit RGB file, which Pillow cannot write: an 8-bit one with another header."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + RANDOM.bytes(7 * 6) for _ in range(9))
    header = struct.pack(">IIBBBBB", 7, 9, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def broken(path):
    Image.fromarray(COLOUR).save(path)
    path.write_bytes(path.read_bytes()[:-60])


def animation(path):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:])


REFUSED = {
    "16-bit grey": (lambda p: Image.fromarray(GREY.astype(np.uint16) * 257).save(p), "8 bits"),
    "16-bit colour": (png16_colour, "8 bits"),
    "truncated": (broken, "cut short or damaged"),
    "no picture": (lambda p: p.write_text("hello"), "is not a JPEG, PNG"),
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "cmyk": (lambda p: Image.new("CMYK", (4, 4)).save(p, format="JPEG"), "CMYK"),
    "animation": (animation, "animation"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_pictures_are_refused_by_name(tmp_path, kind):
    make, message = REFUSED[kind]
    make(tmp_path / "culprit.png")
    with pytest.raises(UserError, match=message) as error:
        read_image(tmp_path / "culprit.png")
    assert "culprit.png" in str(error.value) and "\n" not in str(error.value)


def folder_of(tmp_path, images):
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i:03d}.png")
    return tmp_path


@pytest.mark.parametrize("size", [1, 3, 64])
def test_mixed_sizes_keep_their_positions(tmp_path, size):
    shapes = [(9, 7), (5, 5), (9, 7, 3), (9, 7), (5, 5), (5, 5), (4, 6)] * 3
    pictures = [np.full(shape, i, np.uint8) for i, shape in enumerate(shapes)]
    images = open_images(folder_of(tmp_path, pictures))
    seen = {}
    for positions, batch in images.batches(size, first=2, num=15):
        assert len(batch) <= size
        for position, image in zip(positions, batch, strict=True):
            assert image.shape[:2] == shapes[position + 2][:2]
            seen[int(position)] = int(image.flat[0])
    assert seen == {i: i + 2 for i in range(15)}


def test_files_that_are_no_pictures_are_left_out_and_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no pictures"):
        open_images(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    folder_of(tmp_path, [GREY])
    assert open_images(tmp_path).count == 1


@pytest.mark.parametrize("layout", ["nhw", "nhwc", "nchw", "compressed", "npy", "guided"])
def test_arrays_are_streamed_to_the_pixel(tmp_path, layout):
    pixels = RANDOM.randint(0, 256, (5, 9, 7, 3), dtype=np.uint8)
    path, expected = tmp_path / "a.npz", pixels
    if layout == "nhw":
        np.savez(path, images=pixels[..., 0])
        expected = pixels[..., :1]
    elif layout == "nhwc":
        np.savez(path, images=pixels)
    elif layout == "nchw":
        np.savez(path, images=np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    elif layout == "compressed":
        np.savez_compressed(path, images=pixels)
    elif layout == "guided":
        np.savez(path, pixels, np.arange(5))
    else:
        path = tmp_path / "a.npy"
        np.save(path, pixels)
    images = open_images(path)
    assert images.count == 5 and np.array_equal(np.stack(list(images.stream())), expected)
    assert np.array_equal(np.stack(list(images.stream())), expected), "a second reading"


ARRAYS = {
    "floats": ({"images": np.zeros((2, 4, 4, 3))}, "float64"),
    "two names": ({"a": np.zeros(3), "b": np.zeros(3)}, "expected an array 'images'"),
    "five channels": ({"images": np.zeros((2, 4, 4, 5), np.uint8)}, r"C = 1 or 3"),
    "objects": ({"images": np.array([{}])}, "object|readable"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_other_arrays_are_refused(tmp_path, kind):
    arrays, message = ARRAYS[kind]
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        open_images(tmp_path / "a.npz")


def test_damaged_arrays_are_named(tmp_path):
    path = tmp_path / "torn.npz"
    np.savez(path, images=RANDOM.randint(0, 256, (50, 9, 7), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UserError, match=r"torn\.npz"):
        open_images(path)
    (tmp_path / "b.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.npz"):
        open_images(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("images.npy", npy(RANDOM.bytes(5 * 63 - 1)))
    with pytest.raises(UserError, match=r"short\.npz: ends in image 4"):
        open_images(tmp_path / "short.npz")


def npy(pixels):
    import io

    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (5, 9, 7)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + pixels


def test_a_data_set_and_its_identity():
    images = open_images("mnist-10k:train")
    assert images.count == 10000 and next(images.stream()).shape == (28, 28, 1)
    assert images.identify().startswith("9f53148e") and images.split == "train"


@pytest.mark.parametrize("source", ["nowhere", "nowhere/at:all", "minst:test", "mnist:tset"])
def test_sources_that_are_not_there(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        open_images(source)


@pytest.mark.parametrize("fault, message", [("complete", "not finished"), ("num", "speaks of 9")])
def test_a_sample_folder_is_whole_or_refused(tmp_path, fault, message):
    folder = tmp_path / "samples"
    folder.mkdir()
    for i in range(3):
        Image.fromarray(GREY).save(folder / f"{i:05d}.png")
    Image.fromarray(COLOUR).save(folder / "grid.png")
    manifest = {"solver": "ddim", "complete": True, "num": 3}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert open_images(folder).count == 3
    manifest |= {"complete": False} if fault == "complete" else {"num": 9}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=message):
        open_images(folder)


def test_the_packaged_images_serve_as_mnist_test_without_a_download(monkeypatch, tmp_path):
    from diptych.data import dataset

    real = dataset.find
    monkeypatch.setattr(
        dataset, "find", lambda name, *rest: None if name == "mnist" else real(name, *rest)
    )
    images = open_images("mnist:test")
    assert (images.name, images.split, images.count) == ("mnist", "test", 10000)
    assert images.identify() == open_images("mnist-10k:train").identify()
