"""Unusable pictures: every fault is one line that names the file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_bad_data import refused

import photos
from diptych.data import load_dataset
from diptych.data.crops import Recipe
from diptych.data.picture import decode
from diptych.errors import UserError


def picture() -> Image.Image:
    return photos.crops(1, 24, 24)[0]


def animation(form: str) -> bytes:
    frames = photos.crops(3, 24, 24)
    return photos.encoded(frames[0], form, save_all=True, append_images=frames[1:])


def sixteen_bits_of_colour() -> bytes:
    """A PNG of 16 bits a channel, which Pillow would silently cut to 8; made by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_)

    rows = b"".join(b"\0" + os.urandom(24 * 6) for _ in range(24))
    head = struct.pack(">IIBBBBB", 24, 24, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero-byte": (lambda: b"", "is empty (0 bytes), expected a picture"),
    "html": (
        lambda: b"<!doctype html>",
        "is not a JPEG, PNG, WebP, BMP, TIFF, GIF, PPM or AVIF picture",
    ),
    "cmyk": (lambda: photos.encoded(picture().convert("CMYK")), "is a CMYK picture"),
    "animated png": (lambda: animation("PNG"), "is an animation of 3 frames"),
    "animated webp": (lambda: animation("WEBP"), "is an animation of 3 frames"),
    "16-bit grey": (
        lambda: photos.encoded(Image.fromarray(np.full((24, 24), 9999, np.uint16)), "PNG"),
        "more than 8 bits a channel",
    ),
    "16-bit colour": (sixteen_bits_of_colour, "more than 8 bits a channel"),
    "jpeg cut": (lambda: photos.encoded(picture())[:-60], "is cut short or damaged"),
    "png cut": (lambda: photos.encoded(picture(), "PNG")[:-60], "is cut short or damaged"),
    "webp cut": (lambda: photos.encoded(picture(), "WEBP")[:100], "picture, or its beginning"),
    "header only": (lambda: photos.encoded(picture(), "PNG")[:20], "is"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_pictures_are_refused_by_name(tmp_path: Path, case: str) -> None:
    make, fault = BAD[case]
    root = photos.put_folder(tmp_path, 4)
    path = root / "left/bad.png"
    path.write_bytes(make())
    said = refused(f"folder:{root}", image_size=16)
    assert said.startswith(f"{path}: ") and fault in said


def test_a_picture_of_16_pixels_is_not_one_of_16_bits() -> None:
    for side in (16, 116, 160):
        held = photos.encoded(photos.crops(1, side, side)[0], "PNG")
        assert decode(held, "x", Recipe(16)).shape == (3, 16, 16)


def test_the_limit_is_in_megapixels_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    held = photos.encoded(Image.new("1", (20000, 15001)), "PNG")  # 41 kB
    with pytest.raises(UserError, match=r"x\.png: is 20000x15001, 300 megapixels; pictures of up"):
        decode(held, "x.png", Recipe(16))


@pytest.mark.parametrize("megapixels", [92, 108])
def test_a_large_photograph_is_read_whatever_pillows_limit_and_in_threads(
    tmp_path: Path, megapixels: int
) -> None:
    """Above its own limit of 89 Pillow warns, from 179 on it raises: both are the process's."""
    path = tmp_path / "large.png"
    Image.new("L", (megapixels * 100, 10000), 7).save(path, compress_level=1)
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(photos.encoded(Image.new("L", (8, 8), k), "PNG"))
    before = Image.MAX_IMAGE_PIXELS
    images = load_dataset(f"folder:{tmp_path}", image_size=8, channels=1, crop="stretch").images
    assert [int(image.max()) for image in images] == [0, 1, 2, 7]
    assert before == Image.MAX_IMAGE_PIXELS


def test_folders_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert "holds no pictures (.jpg, .jpeg, .jpe, .jfif, .png" in refused(
        f"folder:{tmp_path}/empty"
    )
    assert "does not exist" in refused(f"folder:{tmp_path}/gone")
    assert "is a file; expected a folder" in refused(f"folder:{tmp_path}/file")


def test_mixed_sizes_without_a_size(tmp_path: Path) -> None:
    root = photos.put_folder(tmp_path, 4)
    said = refused(f"folder:{root}")
    assert "000" not in said.split(":")[1] and "--size 64" in said
    for k, picture in enumerate([*photos.crops(2, 24, 24), *photos.crops(1, 25, 24)]):
        (root / "left" / f"{k}.png").write_bytes(photos.encoded(picture, "PNG"))
    said = refused(f"folder:{root}/left")
    assert "--size 64" in said
    for path in root.rglob("0*.*"):
        path.unlink()
    for k in range(3):
        side = 24 + (k == 2)
        (root / "left" / f"{k}.png").write_bytes(
            photos.encoded(photos.crops(1, side, side)[0], "PNG")
        )
    said = refused(f"folder:{root}/left")
    assert f"{root}/left/2.png: is 25x25, expected 24x24" in said and "--size 64" in said
