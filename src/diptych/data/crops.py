"""Recipes that crop a picture of any size to the target size, under the names used in papers.

    none           no crop; the picture must already have the target size
    center         shorter side to the target size (bilinear), middle square: official DDIM on LSUN
    stretch        both sides to the target size (bilinear), whatever the aspect ratio
    adm            halved by box averages while twice too large, then bicubic, middle square: ADM
    celeba         official DDIM on CelebA: rows 57..184, columns 25..152 of the 178x218 picture
                   (centre (89, 121), half side 64), then bilinear
    celeba-108     middle square of 108: DCGAN           celeba-140   of 140: NCSN, Score-SDE
    celeba-148     of 148: VAE papers                    celeba-178   of 178, the whole width

A target that is no square is filled in the same way: the picture is resized until it just covers
height and width, and the middle is used. CelebA's recipes are squares by definition.

Bilinear and bicubic are Pillow's filters, which average over the source pixels when they shrink;
the official code calls the same functions through torchvision. A picture that already fits is not
resampled. FID differs by whole points between these recipes, so every record carries the name.
"""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from diptych.config.size import Size, sides_of, size_text
from diptych.errors import UserError, nearest

CELEBA = (178, 218)  # width, height of the aligned pictures
_BOX = (25, 57, 153, 185)  # left, top, right, bottom
_MIDDLE = {"celeba-108": 108, "celeba-140": 140, "celeba-148": 148, "celeba-178": 178}
FACES = ("celeba", *_MIDDLE)  # of CelebA's aligned pictures
CROPS = ("none", "center", "stretch", "adm", *FACES)


@dataclass(frozen=True)
class Recipe:
    """The target format of a picture: size in pixels, `channels` (1 or 3) and crop.

    Raises:
        UserError: a crop that gives squares, with a size that is no square.
    """

    size: Size
    channels: int = 3
    crop: str = "center"

    def __post_init__(self) -> None:
        if self.crop in FACES and not isinstance(self.size, int):
            raise UserError(
                f"crop '{self.crop}' gives squares, not {size_text(self.size)}; choose another, "
                "such as center"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return sides_of(self.size)


def check_crop(name: str) -> str:
    """Return the name unchanged. Raises UserError for an unknown one."""
    if name not in CROPS:
        raise UserError(f"crop '{name}' is not known{nearest(name, list(CROPS))}")
    return name


def apply_crop(picture: Image.Image, recipe: Recipe, where: str) -> Image.Image:
    """Crop and resize a picture to the recipe's size.

    Raises:
        UserError: the picture does not fit the recipe; the message names it by `where`.
    """
    crop, (height, width) = recipe.crop, recipe.sides
    if crop in FACES:
        picture = _face(picture, crop, where)
    elif crop == "adm":
        while picture.width >= 2 * width and picture.height >= 2 * height:
            half = (picture.width // 2, picture.height // 2)
            picture = picture.resize(half, Image.Resampling.BOX)
        scale = max(width / picture.width, height / picture.height)
        sides = round(picture.width * scale), round(picture.height * scale)
        picture = _resized(picture, sides, Image.Resampling.BICUBIC)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        return picture.crop((left, top, left + width, top + height))
    if crop == "none" and picture.size != (width, height):
        raise UserError(
            f"{where}: is {picture.width}x{picture.height}, expected {width}x{height} (crop "
            "'none'). Choose a size and a crop, for example --size 64 --crop center"
        )
    if crop == "stretch":
        return _resized(picture, (width, height), Image.Resampling.BILINEAR)
    picture = _covering(picture, (width, height))
    return _middle(picture, (width, height))


def _face(picture: Image.Image, crop: str, where: str) -> Image.Image:
    if picture.size != CELEBA:
        raise UserError(
            f"{where}: is {picture.width}x{picture.height}; the crop '{crop}' is for CelebA's "
            f"aligned pictures of {CELEBA[0]}x{CELEBA[1]}. Use another crop, such as center"
        )
    return picture.crop(_BOX) if crop == "celeba" else _middle(picture, (_MIDDLE[crop],) * 2)


def _covering(picture: Image.Image, to: tuple[int, int]) -> Image.Image:
    """Resize until width and height just cover `to`; the side that is over is rounded down."""
    (width, height), (wide, high), how = picture.size, to, Image.Resampling.BILINEAR
    if width * high <= height * wide:
        return _resized(picture, (wide, int(wide * height / width)), how)
    return _resized(picture, (int(high * width / height), high), how)


def _resized(picture: Image.Image, to: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return picture if picture.size == to else picture.resize(to, how)


def _middle(picture: Image.Image, to: tuple[int, int]) -> Image.Image:
    """Crop the middle, (width, height); half a pixel is rounded to even, as in torchvision."""
    width, height = to
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))
