"""Images from the user's hand, as a model needs them: to be encoded, or to start from.

They are named as everywhere (`diptych.data.sources.spec`): a folder of pictures, a sample folder,
an .npz or .npy, one picture, or `mnist:test`. A data set is made as small as the model's own images
were; nothing else is resized, and colour is not converted: whoever made the model's images decided
how, and we do not know.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data import shrink
from diptych.errors import UserError
from diptych.evaluation.images import open_images
from diptych.types import Pixels

LIMIT = 2**31  # bytes of pixels held at once


@dataclass(frozen=True)
class Inputs:
    """Images and where they came from.

    Attributes:
        pixels: (N, C, H, W) uint8.
        name: for people.
        sha256: of the pixels and their shape.
        left_out: how many files of folders were passed over, by reason.
    """

    pixels: Pixels
    name: str
    sha256: str
    left_out: dict[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What a manifest says of them."""
        found = {"images": self.name, "images_num": len(self.pixels), "images_sha256": self.sha256}
        return found | ({"images_left_out": self.left_out} if self.left_out else {})


def read_inputs(
    sources: Sequence[str],
    shape: tuple[int, int, int],
    num: int | None = None,
    most: int | None = None,
    data_dir: Path | None = None,
) -> Inputs:
    """The images that the sources name, one after the other.

    Args:
        sources: see the module; one or more.
        shape: (C, H, W) of the model's images.
        num: exactly so many, the first ones; None: all.
        most: no more than so many; None: as `num` says.
        data_dir: where data sets are, before all other places.

    Raises:
        UserError: nothing there, fewer than `num`, damaged, or of another size or number of
            channels.
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
    for source, one in zip(sources, opened, strict=True):
        images = islice(one.stream(), count - len(found))
        known = one.split is not None
        found += [_fitted(source, i, image, shape, known) for i, image in enumerate(images)]
    pixels = np.ascontiguousarray(np.stack(found))
    header = "uint8 " + " ".join(map(str, pixels.shape)) + "\n"
    digest = hashlib.sha256(header.encode())
    digest.update(pixels.data)
    name = opened[0].name + (f" and {len(opened) - 1} more" if len(opened) > 1 else "")
    left_out = sum((Counter(one.left_out) for one in opened), Counter[str]())
    return Inputs(pixels, name, digest.hexdigest(), dict(left_out))


def _fitted(source: str, i: int, image: Pixels, shape: tuple[int, int, int], known: bool) -> Pixels:
    """One image (H, W, C) as (C, H, W); a data set's made smaller where that is needed."""
    planes = image.transpose(2, 0, 1)
    if known and planes.shape != shape and planes.shape[0] == shape[0]:
        planes = shrink(planes[None], shape[1])[0]
    if planes.shape != shape:
        channels, height, width = shape
        raise UserError(
            f"{source}: image {i} is {planes.shape[2]}x{planes.shape[1]} with "
            f"{planes.shape[0]} channels, this model needs {width}x{height} with {channels}; "
            f"convert the images first"
        )
    return planes
