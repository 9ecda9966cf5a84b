"""Decode one encoded picture into pixels, or refuse it with a one-line reason.

Every verb reads pictures here: training, packing, scoring, encoding, the search for neighbours.

    kinds         JPEG (also .jfif), PNG, WebP, BMP, TIFF, GIF, PPM/PGM/PBM, AVIF
    EXIF          the orientation is applied; everything else is ignored
    transparency  transparent pixels are composited onto white
    palette       becomes RGB
    grey          stays one channel, unless the caller sets the number of channels

Refused with a specific message, because decoding would require a guess: CMYK (its colours need a
profile), more than 8 bits a channel (the range is unknown, and tools reduce it differently),
animations and files of several pages (which frame?). Also refused: more than LIMIT megapixels, and
files that are empty, truncated or of another kind. The kind is recognised by content; the suffix
only selects the files to read. Nothing here changes the process's settings: Pillow's own limit, a
global number and a warning, is bypassed, so a program that uses Diptych in threads keeps its own.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
from PIL import (
    BmpImagePlugin,  # noqa: F401  (each registers its format in Image.OPEN)
    GifImagePlugin,  # noqa: F401
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    WebPImagePlugin,  # noqa: F401
)

from diptych.data.crops import Recipe, apply_crop
from diptych.errors import MachineError, UserError
from diptych.types import Pixels

with contextlib.suppress(ImportError):  # Pillow 11.3 and later
    from PIL import AvifImagePlugin  # noqa: F401

# Pillow's name of each kind and its suffixes; kinds are tried in this order.
KINDS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
SUFFIXES = tuple(suffix for suffixes in KINDS.values() for suffix in suffixes)
ON_WHITE = "diptych: composited onto white"  # a key of a decoded picture's `info`
LIMIT = 300  # megapixels of one decoded picture; three bytes per pixel
_NAMES = "JPEG, PNG, WebP, BMP, TIFF, GIF, PPM or AVIF"
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX")
_TRANSPARENT = ("LA", "La", "PA", "RGBA", "RGBa")
_REPLACE = "Replace or remove it"
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # of EXIF: width and height are exchanged
# All exceptions of Pillow on damaged bytes. A plugin can still raise its bomb errors.
_DAMAGE = (OSError, SyntaxError, ValueError, IndexError, EOFError, KeyError, TypeError,
           AttributeError, OverflowError, ZeroDivisionError, RuntimeError, struct.error, zlib.error,
           Image.DecompressionBombError, Image.DecompressionBombWarning)  # fmt: skip


def decode(data: bytes, where: str, recipe: Recipe) -> Pixels:
    """Decode bytes into an image of the recipe, (C, H, W), uint8.

    Args:
        data: the bytes of a picture.
        where: its name in messages.
        recipe: size, channels and crop.

    Raises:
        UserError: the picture cannot be used or does not fit the recipe.
        MachineError: not enough memory for it.
    """
    picture = apply_crop(open_picture(data, where, recipe.channels), recipe, where)
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_pixels(data: bytes, where: str) -> Pixels:
    """Decode bytes at their own size: (H, W, 1) for a grey picture, else (H, W, 3), uint8.

    Raises:
        UserError, MachineError: as `decode`.
    """
    return as_pixels(open_picture(data, where, None))


def as_pixels(picture: Image.Image) -> Pixels:
    """A grey or RGB picture as (H, W, 1) or (H, W, 3), uint8."""
    pixels = np.asarray(picture, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def open_picture(data: bytes, where: str, channels: int | None = 3) -> Image.Image:
    """Check and decode a picture: grey (1 channel), RGB (3), or grey stays grey (None).

    Its `info` holds ON_WHITE if some of its pixels were transparent.

    Raises:
        UserError, MachineError: as `decode`.
    """
    picture = open_header(data, where)
    try:
        return _in_mode(picture, channels)
    except _DAMAGE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{where}: the picture is cut short or damaged ({said}). {_REPLACE}"
        ) from None
    except MemoryError:
        raise MachineError(
            f"{where}: no memory for its {picture.width}x{picture.height} pixels. Make it smaller, "
            "or end other programs"
        ) from None


def open_header(data: bytes, where: str) -> ImageFile.ImageFile:
    """Open a picture: only its header is read and checked.

    Raises:
        UserError: empty, of an unknown kind, too large, or refused; see the module.
    """
    if not data:
        raise UserError(f"{where}: is empty (0 bytes), expected a picture. {_REPLACE}")
    picture = _identify(data)
    if picture is None:
        raise UserError(
            f"{where}: is not a {_NAMES} picture, or its beginning is damaged. {_REPLACE}"
        )
    try:
        fault = _fault(picture, data)
    except _DAMAGE as error:
        said = " ".join(str(error).split()) or type(error).__name__
        fault = f"the picture is cut short or damaged ({said}). {_REPLACE}"
    if fault:
        raise UserError(f"{where}: {fault}")
    return picture


def size_of(picture: Image.Image) -> tuple[int, int]:
    """Width and height of an opened picture as it is shown, of its header alone.

    The orientation may be noted in EXIF or in XMP. A PNG's own `getexif` would decode the pixels.
    """
    width, height = picture.size
    if picture.format == "TIFF":  # its reader has exchanged them already
        return width, height
    turned = False
    with contextlib.suppress(*_DAMAGE):
        turned = Image.Image.getexif(picture).get(_ORIENTATION) in _TURNED
    return (height, width) if turned else (width, height)


def _identify(data: bytes) -> ImageFile.ImageFile | None:
    """Open with the first kind whose reader accepts it; like `Image.open` without its limit."""
    for kind in KINDS:
        factory, accept = Image.OPEN.get(kind, (None, None))
        # `accept` returns a text if Pillow was built without this kind.
        if factory is None or (accept is not None and accept(data[:16]) is not True):
            continue
        try:
            return factory(io.BytesIO(data), "")
        except _DAMAGE:
            continue
    return None


def _fault(picture: ImageFile.ImageFile, data: bytes) -> str:
    """The reason to refuse a picture, or ''."""
    width, height = picture.size
    if width * height > LIMIT * 10**6:
        return (
            f"is {width}x{height}, {width * height / 1e6:.0f} megapixels; pictures of up to "
            f"{LIMIT} megapixels are read. Make it smaller first"
        )
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # an MPO is a JPEG with extras such as previews
        what = "a file of {} pages" if picture.format == "TIFF" else "an animation of {} frames"
        return f"is {what.format(frames)}; give a still picture"
    if picture.mode == "CMYK":
        return "is a CMYK picture; its colours need a profile. Convert it to RGB first"
    if picture.mode.startswith(("I", "F")) or _deep(picture, data):
        return f"has more than 8 bits a channel (mode {picture.mode}). Convert it to 8 bits first"
    if picture.mode not in _MODES:
        return f"is in the mode {picture.mode}; expected grey, RGB or a palette. Convert it to RGB"
    return ""


def _deep(picture: ImageFile.ImageFile, data: bytes) -> bool:
    """True if the file has more than 8 bits a channel although Pillow returns 8."""
    if picture.format == "AVIF":
        at = data.find(b"av1C")  # the codec's settings; the bit says 10 or 12 bits
        return at >= 0 and len(data) > at + 6 and bool(data[at + 6] & 0x40)
    for tile in picture.tile:
        parts = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        for part in parts:
            if isinstance(part, str) and ";16" in part and part != "BGR;16":  # 5, 6 and 5 bits
                return True
        if picture.format == "PPM" and isinstance(parts[-1], int) and parts[-1] > 255:
            return True
    return False


def _in_mode(picture: Image.Image, channels: int | None) -> Image.Image:
    grey = picture.mode in ("1", "L", "LA", "La")
    picture = ImageOps.exif_transpose(picture)
    on_white = False
    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        if picture.mode in ("La", "PA"):
            picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
        picture = picture.convert("RGBA")
        on_white = any(picture.getchannel("A").histogram()[:255])
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    made = picture.convert("L" if channels == 1 or (channels is None and grey) else "RGB")
    if on_white:
        made.info = {**made.info, ON_WHITE: True}
    return made
