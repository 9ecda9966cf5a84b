"""One picture file as 8-bit pixels, or a refusal that names it.

Taken: greyscale and bilevel (one channel), RGB and palette (three), and an alpha channel that is
opaque everywhere. Refused by name: more than 8 bits a channel (the tools disagree on what to do:
Pillow clips some and drops the low byte of others), transparency, CMYK and the like, damage.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from diptych.errors import UserError
from diptych.types import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def read_image(path: Path) -> Pixels:
    """The picture as (H, W, 1) or (H, W, 3) uint8.

    Raises:
        UserError: damaged, too deep, transparent or of another colour space.
    """
    try:
        with Image.open(path) as picture:
            deep = _deep(picture)
            if deep is None:
                picture.load()
                return _pixels(path, picture)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not a readable picture ({reason}); replace it or take it out"
        ) from error
    raise UserError(
        f"{path}: has more than 8 bits a channel ({deep}), and tools disagree on how to reduce "
        f"that; convert the pictures to 8 bits first"
    )


def _deep(picture: Image.Image) -> str | None:
    """What says that the file has more than 8 bits a channel, or None."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return f"mode {picture.mode}"
    # A 16-bit RGB file opens as 8-bit RGB; only the decoder's raw mode still tells.
    raw = [part for tile in getattr(picture, "tile", ()) for part in _texts(tile[3])]
    return next((f"raw mode {text}" for text in raw if ";16" in text), None)


def _texts(arguments: object) -> list[str]:
    parts = arguments if isinstance(arguments, tuple) else (arguments,)
    return [part for part in parts if isinstance(part, str)]


def _pixels(path: Path, picture: Image.Image) -> Pixels:
    if getattr(picture, "n_frames", 1) > 1:
        raise UserError(f"{path}: is an animation; take out its frames as single pictures")
    if picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    elif picture.mode == "1":
        picture = picture.convert("L")
    elif "transparency" in picture.info and picture.mode in ("L", "RGB"):
        picture = picture.convert("LA" if picture.mode == "L" else "RGBA")
    if picture.mode in TRANSPARENT:
        picture = _opaque(path, picture)
    if picture.mode not in ("L", "RGB"):
        raise UserError(f"{path}: is in colour mode {picture.mode}; convert it to greyscale or RGB")
    array = np.asarray(picture)
    return array[..., None] if array.ndim == 2 else array


def _opaque(path: Path, picture: Image.Image) -> Image.Image:
    if picture.getchannel("A" if "A" in picture.mode else "a").getextrema() != (255, 255):
        raise UserError(
            f"{path}: has transparent pixels, whose colour depends on a background; flatten it"
        )
    return picture.convert("L" if picture.mode.startswith("L") else "RGB")
