"""One encoded picture into pixels, or one line that says why not.

Taken are JPEG, PNG and WebP of 8 bits in grey, colour or palette. Refused, by name, is what would
have to be guessed at: CMYK (its colours need a profile), 16-bit and float pictures (their range is
not known), animations (which frame?), and whatever is empty, cut short or of another format.
Transparent pixels are put on white. The orientation that a camera noted is followed.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps

from diptych.data.crops import Recipe, apply_crop
from diptych.errors import UserError
from diptych.types import Pixels

FORMATS = ("JPEG", "PNG", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
_REPLACE = "Replace or remove it"
# All that Pillow raises on damaged bytes.
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, EOFError, KeyError, TypeError,
           OverflowError, struct.error, zlib.error, Image.DecompressionBombError,
           Image.DecompressionBombWarning)  # fmt: skip


def decode(data: bytes, where: str, recipe: Recipe) -> Pixels:
    """Encoded bytes as an image of the recipe, (C, H, W), uint8.

    Args:
        data: the bytes of a JPEG, PNG or WebP picture.
        where: how messages name it.
        recipe: size, channels and crop.

    Raises:
        UserError: a picture that cannot be used, or does not fit the recipe.
    """
    picture = apply_crop(open_picture(data, where, recipe.channels), recipe, where)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def open_picture(data: bytes, where: str, channels: int = 3) -> Image.Image:
    """A checked and decoded picture, grey (1 channel) or RGB (3).

    Raises:
        UserError: as `decode`.
    """
    if not data:
        raise UserError(f"{where}: is empty (0 bytes), expected a picture. {_REPLACE}")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except _DAMAGE:
            raise UserError(
                f"{where}: is not a JPEG, PNG or WebP picture, or its beginning is damaged. "
                f"{_REPLACE}"
            ) from None
        fault = _fault(picture)
        if fault:
            raise UserError(f"{where}: {fault}")
        try:
            return _in_mode(picture, channels)
        except _DAMAGE as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise UserError(
                f"{where}: the picture is cut short or damaged ({said}). {_REPLACE}"
            ) from None


def _fault(picture: Image.Image) -> str:
    """Why an opened picture is refused, or ''."""
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
        return f"is an animation of {getattr(picture, 'n_frames', 0)} frames; give a still picture"
    if picture.mode == "CMYK":
        return "is a CMYK picture; its colours need a profile. Convert it to RGB first"
    raw = str(getattr(picture, "tile", None) or "")
    if picture.mode.startswith(("I", "F")) or ";16" in raw:  # as in RGB;16B
        return f"has more than 8 bits a channel (mode {picture.mode}). Convert it to 8 bits first"
    if picture.mode not in _MODES:
        return f"is in the mode {picture.mode}; expected grey, RGB or a palette. Convert it to RGB"
    return ""


def _in_mode(picture: Image.Image, channels: int) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    transparent = picture.mode in ("LA", "La", "PA", "RGBA", "RGBa")
    if transparent or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L" if channels == 1 else "RGB")
