"""User images in the form that a model needs, for encoding or as starts.

Sources are named as everywhere (`diptych.data.sources.spec`): a folder of pictures, a sample
folder, an .npz or .npy, one picture, or `mnist:test`. A data set is shrunk to the model's image
size. Pictures of another size or number of channels get the crop, resizing and colours of the
model's training (`diptych.data.crops`), and a one-line note says so.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diptych.config.size import size_of
from diptych.data import shrink
from diptych.data.crops import CELEBA, Recipe, apply_crop
from diptych.data.notes import note
from diptych.errors import UserError
from diptych.evaluation.images import open_images
from diptych.types import Pixels

ANY_SIZE = ("center", "stretch", "adm")  # crops that accept pictures of any size
LIMIT = 2**31  # bytes of pixels held at once


@dataclass(frozen=True)
class Inputs:
    """Images and their origin.

    Attributes:
        pixels: (N, C, H, W) uint8.
        name: a name for people.
        sha256: hash of the pixels and their shape.
        left_out: number of skipped files in folders, by reason.
        crop: the crop applied to images that did not fit; None: all fitted.
    """

    pixels: Pixels
    name: str
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict)
    crop: str | None = None

    def facts(self) -> dict[str, Any]:
        """The images' entries in a manifest."""
        found = {"images": self.name, "images_num": len(self.pixels), "images_sha256": self.sha256}
        found |= {"images_left_out": self.left_out} if self.left_out else {}
        return found | ({"images_crop": self.crop} if self.crop is not None else {})


def read_inputs(
    sources: Sequence[str],
    shape: tuple[int, int, int],
    num: int | None = None,
    most: int | None = None,
    data_dir: Path | None = None,
    crop: str | None = None,
) -> Inputs:
    """Read the images of the sources, in order.

    Args:
        sources: one or more; see the module.
        shape: (C, H, W) of the model's images.
        num: exactly this many, the first ones; None: all.
        most: at most this many; None: `num` decides.
        data_dir: folder that holds the data sets; no other place is searched.
        crop: the model's own crop (`data.crop`); None: center.

    Raises:
        UserError: no images, fewer than `num`, damaged, or a data set that does not fit.
    """
    if num is not None and num < 1:
        raise UserError(f"--num is {num}; it must be 1 or more")
    opened = [open_images(source, data_dir) for source in sources]
    there = sum(one.count for one in opened)
    count = min(there, most) if most is not None else there if num is None else num
    if count > there:
        raise UserError(f"{' '.join(sources)}: {there} images, but --num is {count}")
    if count * int(np.prod(shape)) > LIMIT:
        raise UserError(f"{sources[0]}: {count:,} images are too many at once; give --num")
    found: list[Pixels] = []
    recipe, fitted = Recipe(size_of(*shape[1:]), shape[0], crop or "center"), 0
    crops = set[str]()
    for source, one in zip(sources, opened, strict=True):
        for i, image in enumerate(islice(one.stream(), count - len(found))):
            planes = image.transpose(2, 0, 1)
            if planes.shape != shape and one.split is None:
                planes, fitting = _picture(image, recipe, f"{source}: image {i}")
                crops.add(fitting.crop)
                fitted += 1
            found.append(_known(source, i, planes, shape))
    used = " or ".join(sorted(crops)) or None
    if fitted:
        colours = "grey" if shape[0] == 1 else "RGB"
        sides = f"{shape[1]}x{shape[2]}" + (" (height x width)" if shape[1] != shape[2] else "")
        note(
            f"{fitted} of {len(found)} images made {sides}, {colours}, as in this model's training "
            f"(crop {used})"
        )
    pixels = np.ascontiguousarray(np.stack(found))
    header = "uint8 " + " ".join(map(str, pixels.shape)) + "\n"
    digest = hashlib.sha256(header.encode())
    digest.update(pixels.data)
    name = opened[0].name + (f" and {len(opened) - 1} more" if len(opened) > 1 else "")
    left_out = sum((Counter(one.left_out) for one in opened), Counter[str]())
    return Inputs(pixels, name, digest.hexdigest(), dict(left_out), used)


def fitted_picture(
    image: Pixels, shape: tuple[int, int, int], crop: str | None, where: str
) -> Pixels:
    """One picture (H, W, 1 or 3) as (C, H, W) of the model's shape; cropped only if it differs.

    Args:
        shape: (C, H, W) of the model's images.
        crop: the model's own crop (`data.crop`); None: center.
        where: names the picture in messages.
    """
    planes: Pixels = image.transpose(2, 0, 1)
    if planes.shape != shape:
        planes, _ = _picture(image, Recipe(size_of(*shape[1:]), shape[0], crop or "center"), where)
    return _known(where, 0, np.ascontiguousarray(planes), shape)


def _picture(image: Pixels, recipe: Recipe, where: str) -> tuple[Pixels, Recipe]:
    """Apply the recipe to a picture (H, W, C); return (C, H, W) and the recipe used.

    A crop that needs pictures of one size (`none`, or CelebA's) is replaced by `center`.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture = picture.convert("L" if recipe.channels == 1 else "RGB")
    face = recipe.crop.startswith("celeba") and picture.size == CELEBA
    if recipe.crop not in ANY_SIZE and not face:
        recipe = replace(recipe, crop="center")
    pixels = np.asarray(apply_crop(picture, recipe, where), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), recipe


def _known(source: str, i: int, planes: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """One image (C, H, W) of the model's shape, shrunk if needed. Raises UserError if unlike."""
    if planes.shape != shape and planes.shape[0] == shape[0]:
        planes = shrink(planes[None], size_of(*shape[1:]))[0]
    if planes.shape != shape:
        channels, height, width = shape
        raise UserError(
            f"{source}: image {i} is {planes.shape[2]}x{planes.shape[1]} with "
            f"{planes.shape[0]} channels, this model needs {width}x{height} with {channels}; "
            f"give pictures in a folder, which are converted"
        )
    return planes
