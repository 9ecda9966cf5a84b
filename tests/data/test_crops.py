"""Crop recipes, and pictures of every supported kind."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import photos
from diptych.data import load_dataset
from diptych.data.crops import CROPS, Recipe, apply_crop
from diptych.data.picture import decode
from diptych.errors import UserError


@pytest.mark.parametrize("crop", CROPS)
def test_every_crop_gives_the_wanted_square(crop: str) -> None:
    for width, height in [(178, 218)] if crop.startswith("celeba") else [(90, 61), (61, 90)]:
        picture = photos.crops(1, width, height)[0]
        if crop == "none":
            with pytest.raises(UserError, match=f"is {width}x{height}, expected 32x32"):
                apply_crop(picture, Recipe(32, 3, crop), "x")
            picture = picture.resize((32, 32))
        made = apply_crop(picture, Recipe(32, 3, crop), "x")
        assert made.size == (32, 32) and made.mode == "RGB"


@pytest.mark.parametrize("crop", ["center", "adm"])
def test_the_middle_of_a_wanted_shape_has_the_pictures_own_pixels(crop: str) -> None:
    """Wider pictures lose columns, higher ones rows; nothing is resampled that fits."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 60, 3), np.uint8)
    for turned in (False, True):
        given = pixels.transpose(1, 0, 2) if turned else pixels
        wanted = pixels[:, 15:45].transpose(1, 0, 2) if turned else pixels[:, 15:45]
        made = apply_crop(Image.fromarray(given), Recipe(wanted.shape[:2], 3, crop), "x")
        assert np.array_equal(np.asarray(made), wanted)
        assert Recipe(wanted.shape[:2], 3, crop).sides == wanted.shape[:2]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("sides", [(90, 66), (66, 90), (640, 427), (201, 200), (64, 64), (300, 65)])
def test_adm_is_the_crop_of_guided_diffusion(sides: tuple[int, int], size: int) -> None:
    """Dhariwal and Nichol 2021, image_datasets.py: halved by boxes, then the short side to size,
    both sides rounded, then the middle."""
    given = made = photos.crops(1, *sides)[0]
    while min(made.size) >= 2 * size:
        made = made.resize((made.size[0] // 2, made.size[1] // 2), resample=Image.Resampling.BOX)
    ratio = size / min(made.size)
    whole = round(made.size[0] * ratio), round(made.size[1] * ratio)
    pixels = np.array(made.resize(whole, resample=Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    wanted = pixels[top : top + size, left : left + size]
    assert np.array_equal(np.asarray(apply_crop(given, Recipe(size, 3, "adm"), "x")), wanted)


def test_a_wanted_shape_is_covered_and_cut() -> None:
    """By Pillow's own resize, of pictures that are wider and higher than it."""
    for width, height, to in ((90, 61, (35, 24)), (61, 90, (32, 47)), (64, 48, (32, 24))):
        picture = photos.crops(1, width, height)[0]
        scaled = picture.resize(to, Image.Resampling.BILINEAR)
        left, top = round((to[0] - 32) / 2), round((to[1] - 24) / 2)
        expected = np.asarray(scaled)[top : top + 24, left : left + 32]
        held = photos.encoded(picture, "PNG")
        assert np.array_equal(decode(held, "x", Recipe((24, 32))), expected.transpose(2, 0, 1))
        made = decode(held, "x", Recipe((24, 32), 3, "stretch"))
        assert np.array_equal(made, np.asarray(picture.resize((32, 24), 2)).transpose(2, 0, 1))
        with pytest.raises(UserError, match=f"is {width}x{height}, expected 32x24"):
            decode(held, "x", Recipe((24, 32), 3, "none"))
    for crop in CROPS:
        if crop.startswith("celeba"):
            with pytest.raises(UserError, match=f"'{crop}' gives squares, not 24x32"):
                Recipe((24, 32), 3, crop)


def test_crops_differ_and_name_what_they_need() -> None:
    face, other = photos.crops(1, 178, 218)[0], photos.crops(1, 60, 60)[0]
    made = {c: apply_crop(face, Recipe(32, 3, c), "x").tobytes() for c in CROPS if c != "none"}
    # The middle square of the whole width is the one recipe that has two names.
    assert len(set(made.values())) == len(made) - (made["center"] == made["celeba-178"])
    with pytest.raises(UserError, match=r"a.jpg: is 60x60; the crop 'celeba' is for CelebA's"):
        apply_crop(other, Recipe(32, 3, "celeba"), "a.jpg")
    with pytest.raises(UserError, match="crop 'centre' is not known; did you mean 'center'"):
        load_dataset("celeba", crop="centre")
    assert np.array_equal(
        decode(photos.encoded(other, "PNG"), "x", Recipe(60, 3, "none")),
        np.asarray(other).transpose(2, 0, 1),
    )


def test_transparency_goes_on_white_and_orientation_is_followed() -> None:
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert decode(photos.encoded(clear, "PNG"), "x", Recipe(8)).min() == 255
    picture = photos.crops(1, 16, 8)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = photos.encoded(picture, "PNG", exif=exif)
    upright = photos.encoded(picture.transpose(Image.Transpose.ROTATE_270), "PNG")
    for crop in ("center", "stretch"):
        recipe = Recipe(8, 3, crop)
        assert np.array_equal(decode(turned, "x", recipe), decode(upright, "x", recipe))


def test_palette_and_grey_pictures_become_colour_and_back() -> None:
    picture = photos.crops(1, 16, 16)[0]
    grey = picture.convert("L")
    recipe = Recipe(16, 3, "none")
    colour = decode(photos.encoded(grey, "PNG"), "x", recipe)
    assert np.array_equal(colour, np.stack([np.asarray(grey)] * 3))
    assert np.array_equal(
        decode(photos.encoded(picture, "PNG"), "x", Recipe(16, 1, "none"))[0], np.asarray(grey)
    )
    palette = picture.quantize(16)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(decode(photos.encoded(palette, "PNG"), "x", recipe), expected)
