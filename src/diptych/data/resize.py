"""Shrink images by an integer factor: each new pixel is the mean of a k x k block.

    out[y, x] = floor(sum(block) / k**2 + 1/2),      in integers: (2 * sum + k**2) // (2 * k**2)

so the result is bit-identical on every machine. This is the exact area average. There is no other
filter and no enlarging; sizes that do not divide evenly are refused because every library resamples
them differently.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import UserError


def shrink(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Average square images down to size x size.

    Args:
        images: (N, C, H, H), uint8.
        size: the new height and width, a divisor of H.

    Returns:
        (N, C, size, size), uint8, read-only; `images` itself if `size` is H.

    Raises:
        UserError: `size` is not a divisor of H, or the images are not square.
    """
    height, width = images.shape[-2:]
    if height != width:
        raise UserError(f"images are {height}x{width}; only square images can be resized.")
    if size < 1 or height % size:
        sizes = ", ".join(str(n) for n in range(1, height + 1) if height % n == 0)
        raise UserError(
            f"image_size {size} cannot be made from {height}x{height} images by averaging whole "
            f"blocks; expected one of {sizes}. Set data.image_size to one of these."
        )
    factor = height // size
    if factor == 1:
        return images
    # The dtype must hold twice the largest block sum plus the rounding term: 16-bit sums are twice
    # as fast as 32-bit ones and suffice up to a factor of 11.
    area = factor * factor
    dtype = np.uint16 if (2 * 255 + 1) * area <= 65535 else np.uint32
    total: NDArray[Any] = np.zeros((*images.shape[:2], size, size), dtype)
    for y in range(factor):
        for x in range(factor):
            total += images[..., y::factor, x::factor]
    small: NDArray[np.uint8] = ((2 * total + dtype(area)) // dtype(2 * area)).astype(np.uint8)
    small.flags.writeable = False
    return small
