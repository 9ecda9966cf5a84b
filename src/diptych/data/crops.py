"""Recipes that crop a picture of any size to a square, under the names used in papers.

    none           no crop; the picture must already have the target size
    center         shorter side to the target size (bilinear), middle square: official DDIM on LSUN
    stretch        both sides to the target size (bilinear), whatever the aspect ratio
    adm            halved by box averages while twice too large, then bicubic, middle square: ADM
    celeba         official DDIM on CelebA: rows 57..184, columns 25..152 of the 178x218 picture
                   (centre (89, 121), half side 64), then bilinear
    celeba-108     middle square of 108: DCGAN           celeba-140   of 140: NCSN, Score-SDE
    celeba-148     of 148: VAE papers                    celeba-178   of 178, the whole width

Bilinear and bicubic are Pillow's filters, which average over the source pixels when they shrink;
the official code calls the same functions through torchvision. A picture that already fits is not
resampled. FID differs by whole points between these recipes, so every record carries the name.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from diptych.errors import UserError, nearest

CELEBA = (178, 218)  # width, height of the aligned pictures
_BOX = (25, 57, 153, 185)  # left, top, right, bottom
_MIDDLE = {"celeba-108": 108, "celeba-140": 140, "celeba-148": 148, "celeba-178": 178}
CROPS = ("none", "center", "stretch", "adm", "celeba", *_MIDDLE)


@dataclass(frozen=True)
class Recipe:
    """The target format of a picture: `size` x `size` pixels, `channels` (1 or 3) and crop."""

    size: int
    channels: int = 3
    crop: str = "center"


def check_crop(name: str) -> str:
    """Return the name unchanged. Raises UserError for an unknown one."""
    if name not in CROPS:
        raise UserError(f"crop '{name}' is not known{nearest(name, list(CROPS))}")
    return name


def apply_crop(picture: Image.Image, recipe: Recipe, where: str) -> Image.Image:
    """Crop and resize a picture to a square of the recipe's size.

    Raises:
        UserError: the picture does not fit the recipe; the message names it by `where`.
    """
    crop, size = recipe.crop, recipe.size
    if crop in ("celeba", *_MIDDLE):
        picture = _face(picture, crop, where)
    elif crop == "adm":
        while min(picture.size) >= 2 * size:
            half = (picture.width // 2, picture.height // 2)
            picture = picture.resize(half, Image.Resampling.BOX)
        picture = _shorter_side(picture, size, Image.Resampling.BICUBIC)
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        return picture.crop((left, top, left + size, top + size))
    if crop == "none" and picture.size != (size, size):
        raise UserError(
            f"{where}: is {picture.width}x{picture.height}, expected {size}x{size} (crop 'none'). "
            "Choose a size and a crop, for example --size 64 --crop center"
        )
    if crop == "stretch":
        return _resized(picture, (size, size), Image.Resampling.BILINEAR)
    picture = _shorter_side(picture, size, Image.Resampling.BILINEAR)
    return _middle(picture, size)


def _face(picture: Image.Image, crop: str, where: str) -> Image.Image:
    if picture.size != CELEBA:
        raise UserError(
            f"{where}: is {picture.width}x{picture.height}; the crop '{crop}' is for CelebA's "
            f"aligned pictures of {CELEBA[0]}x{CELEBA[1]}. Use another crop, such as center"
        )
    return picture.crop(_BOX) if crop == "celeba" else _middle(picture, _MIDDLE[crop])


def _shorter_side(picture: Image.Image, size: int, how: Image.Resampling) -> Image.Image:
    """Resize the shorter side to `size`, the longer one in proportion, rounded down."""
    width, height = picture.size
    shorter, longer = min(width, height), max(width, height)
    other = int(size * longer / shorter)
    return _resized(picture, (size, other) if width <= height else (other, size), how)


def _resized(picture: Image.Image, to: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return picture if picture.size == to else picture.resize(to, how)


def _middle(picture: Image.Image, size: int) -> Image.Image:
    """Crop the middle square; half a pixel is rounded to even, as in torchvision."""
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))
