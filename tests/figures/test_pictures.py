"""Grids and PNG files hold exactly the given pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.errors import MachineError
from diptych.figures.grids import grid, read_png, save_png, to_picture
from diptych.types import Pixels
from full_disk import room_for
from properties import given, st


def images(count: int, channels: int, height: int, width: int) -> Pixels:
    rng = np.random.default_rng(count)
    return rng.integers(0, 255, (count, channels, height, width), dtype=np.uint8)


@given(
    st.integers(1, 30),
    st.sampled_from([1, 3]),
    st.integers(1, 5),
    st.integers(1, 5),
    st.none() | st.integers(1, 8),
    st.integers(0, 3),
)
def test_a_grid_holds_every_image_in_reading_order_and_white_elsewhere(
    count: int, channels: int, height: int, width: int, columns: int | None, gap: int
) -> None:
    drawn = images(count, channels, height, width)
    sheet = grid(drawn, columns, gap)
    across = columns or int(np.ceil(np.sqrt(count)))
    down = -(-count // across)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (channels, down * (height + gap) + gap, across * (width + gap) + gap)
    for i in range(count):
        row, column = divmod(i, across)
        y, x = gap + row * (height + gap), gap + column * (width + gap)
        place = sheet[:, y : y + height, x : x + width]
        assert np.array_equal(place, drawn[i])
        place[:] = 255
    assert np.all(sheet == 255)


def test_sixty_four_images_make_eight_by_eight() -> None:
    assert grid(images(64, 1, 28, 28)).shape == (1, 8 * 30 + 2, 8 * 30 + 2)
    assert grid(images(6, 3, 4, 4), columns=6).shape == (3, 8, 38)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_gives_back_every_pixel(tmp_path: Path, channels: int) -> None:
    picture = images(1, channels, 7, 5)[0]
    save_png(tmp_path / "deep" / "x.png", picture)
    back = read_png(tmp_path / "deep" / "x.png")
    assert back.dtype == np.uint8 and np.array_equal(back, picture)
    assert to_picture(picture).mode == ("L" if channels == 1 else "RGB")


def test_scaling_repeats_pixels(tmp_path: Path) -> None:
    picture = images(1, 3, 4, 6)[0]
    save_png(tmp_path / "x.png", picture, scale=3)
    expected = picture.repeat(3, axis=1).repeat(3, axis=2)
    assert np.array_equal(read_png(tmp_path / "x.png"), expected)


def test_equal_pictures_are_equal_files(tmp_path: Path) -> None:
    """A resumed folder is compared byte by byte: no time stamp may get in."""
    picture = images(1, 1, 28, 28)[0]
    for name in ("a.png", "b.png"):
        save_png(tmp_path / name, picture)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.info == {}


def test_a_full_disk_keeps_the_old_picture(tmp_path: Path) -> None:
    old, new = images(1, 1, 4, 4)[0], images(2, 3, 90, 90)[1]
    save_png(tmp_path / "x.png", old)
    with room_for(5_000), pytest.raises(MachineError, match="the disk is full"):
        save_png(tmp_path / "x.png", new)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert np.array_equal(read_png(tmp_path / "x.png"), old)
