"""Images from the user's hand, as a model needs them: to be encoded, or to start from.

They are named as everywhere (`diptych.data.sources.spec`): a folder of pictures, a sample folder,
an .npz or .npy, one picture, or `mnist:test`. A data set is made as small as the model's own images
were. Pictures of another size or number of channels go through the crop, the resizing and the
colours of the model's training (`diptych.data.crops`), which is said in one line.
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

from diptych.data import shrink
from diptych.data.crops import CELEBA, Recipe, apply_crop
from diptych.data.notes import note
from diptych.errors import UserError
from diptych.evaluation.images import open_images
from diptych.types import Pixels

ANY_SIZE = ("center", "stretch", "adm")  # crops that take pictures of any size
LIMIT = 2**31  # bytes of pixels held at once


@dataclass(frozen=True)
class Inputs:
    """Images and where they came from.

    Attributes:
        pixels: (N, C, H, W) uint8.
        name: for people.
        sha256: of the pixels and their shape.
        left_out: how many files of folders were passed over, by reason.
        crop: the recipe by which some were made to fit; None: all fitted.
    """

    pixels: Pixels
    name: str
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict)
    crop: str | None = None

    def facts(self) -> dict[str, Any]:
        """What a manifest says of them."""
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
    """The images that the sources name, one after the other.

    Args:
        sources: see the module; one or more.
        shape: (C, H, W) of the model's images.
        num: exactly so many, the first ones; None: all.
        most: no more than so many; None: as `num` says.
        data_dir: where data sets are, before all other places.
        crop: the model's own recipe (`data.crop`); None: center.

    Raises:
        UserError: nothing there, fewer than `num`, damaged, or a data set that does not fit.
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
    recipe, fitted = Recipe(shape[1], shape[0], crop or "center"), 0
    for source, one in zip(sources, opened, strict=True):
        for i, image in enumerate(islice(one.stream(), count - len(found))):
            planes = image.transpose(2, 0, 1)
            if planes.shape != shape and one.split is None:
                planes, recipe = _picture(image, recipe, f"{source}: image {i}")
                fitted += 1
            found.append(_known(source, i, planes, shape))
    if fitted:
        colours = "grey" if shape[0] == 1 else "RGB"
        note(
            f"{fitted} of {len(found)} images made {shape[2]}x{shape[1]}, {colours}, as in this "
            f"model's training (crop {recipe.crop})"
        )
    pixels = np.ascontiguousarray(np.stack(found))
    header = "uint8 " + " ".join(map(str, pixels.shape)) + "\n"
    digest = hashlib.sha256(header.encode())
    digest.update(pixels.data)
    name = opened[0].name + (f" and {len(opened) - 1} more" if len(opened) > 1 else "")
    left_out = sum((Counter(one.left_out) for one in opened), Counter[str]())
    used = recipe.crop if fitted else None
    return Inputs(pixels, name, digest.hexdigest(), dict(left_out), used)


def _picture(image: Pixels, recipe: Recipe, where: str) -> tuple[Pixels, Recipe]:
    """A picture (H, W, C) as the recipe makes it, (C, H, W), and the recipe.

    A crop for pictures of one size alone (`none`, or CelebA's) gives way to `center`.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    picture = picture.convert("L" if recipe.channels == 1 else "RGB")
    face = recipe.crop.startswith("celeba") and picture.size == CELEBA
    if recipe.crop not in ANY_SIZE and not face:
        recipe = replace(recipe, crop="center")
    pixels = np.asarray(apply_crop(picture, recipe, where), dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), recipe


def _known(source: str, i: int, planes: Pixels, shape: tuple[int, int, int]) -> Pixels:
    """One image (C, H, W); a data set's made smaller if that is needed."""
    if planes.shape != shape and planes.shape[0] == shape[0]:
        planes = shrink(planes[None], shape[1])[0]
    if planes.shape != shape:
        channels, height, width = shape
        raise UserError(
            f"{source}: image {i} is {planes.shape[2]}x{planes.shape[1]} with "
            f"{planes.shape[0]} channels, this model needs {width}x{height} with {channels}; "
            f"give pictures in a folder, which are converted"
        )
    return planes
