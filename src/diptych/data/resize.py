"""Shrink images by an integer factor: each new pixel is the mean of a k x k block.

    out[y, x] = floor(sum(block) / k**2 + 1/2),      in integers: (2 * sum + k**2) // (2 * k**2)

so the result is bit-identical on every machine. This is the exact area average. There is no other
filter and no enlarging; sizes that do not divide evenly are refused because every library resamples
them differently.
"""

from __future__ import annotations

import numpy as np

from diptych.config.size import LEAST, Size, sides_of, size_of, size_option
from diptych.errors import UserError
from diptych.types import Array, Pixels

AT_ONCE = 1024  # images


def shrink(images: Pixels, size: Size) -> Pixels:
    """Average images down to a size.

    Args:
        images: (N, C, H, W), uint8.
        size: the new height and width: both sides divided by the same whole number k.

    Returns:
        (N, C, H / k, W / k), uint8, read-only; `images` itself if k is 1.

    Raises:
        UserError: there is no such k.
    """
    height, width = images.shape[-2:]
    high, wide = sides_of(size)
    factor = height // high if high > 0 else 0
    if (factor * high, factor * wide) != (height, width):
        most = max(1, min(height, width) // LEAST)
        factors = [k for k in range(most, 0, -1) if height % k == 0 == width % k]
        sizes = ", ".join(size_option(size_of(height // k, width // k)) for k in factors)
        raise UserError(
            f"size {size_option(size)} cannot be made from {height}x{width} images by averaging "
            f"whole blocks of pixels; give one of {sizes}"
        )
    if factor == 1:
        return images
    # The dtype must hold twice the largest block sum plus the rounding term: 16-bit sums are twice
    # as fast as 32-bit ones and suffice up to a factor of 11.
    area = factor * factor
    dtype = np.uint16 if (2 * 255 + 1) * area <= 65535 else np.uint32
    small: Pixels = np.empty((*images.shape[:2], high, wide), np.uint8)
    for first in range(0, len(images), AT_ONCE):
        part = images[first : first + AT_ONCE]
        total: Array = np.zeros((*part.shape[:2], high, wide), dtype)
        for y in range(factor):
            for x in range(factor):
                total += part[..., y::factor, x::factor]
        small[first : first + AT_ONCE] = (2 * total + dtype(area)) // dtype(2 * area)
    small.flags.writeable = False
    return small
