"""Comparison of two sample folders, image by image: uint8 values that differ, and by how much.

If both sampler cards agree, image i of both was sampled from the same noise, keyed by (seed, i).
Matched runs with differing cards are refused, because their images differ for another reason.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.runs.samples import Samples
from diptych.types import Pixels

# The card's entries that determine image i; the weights' values do too.
CARD = ("solver", "steps", "order", "eta", "spacing", "timesteps", "sigma_type", "clip",
        "threshold", "classes", "guidance", "guide_sha256", "guidance_interval",
        "euler_at_final", "level", "start", "noise", "precision", "weights", "seed")  # fmt: skip
SIDE = 8
# Advice if the cards or the images do not match.
WITHOUT = "Sample both with the same settings, or leave out --samples"


def compare_samples(a: Samples, b: Samples, matched: bool) -> dict[str, Any]:
    """Compare both sampler cards and, if they and the image sizes agree, the images.

    Raises:
        UserError: if `matched` and the cards or image sizes differ.
    """
    keys = sorted(key for key in CARD if a.card.get(key) != b.card.get(key))
    if a.images.shape[1:] != b.images.shape[1:]:
        keys.append("image size")
    if matched and keys:
        raise UserError(
            f"{a.folder} and {b.folder} were not sampled alike: {', '.join(keys)} differ. "
            f"{WITHOUT}, or compare without matching: --unmatched"
        )
    return {
        "a": _card(a),
        "b": _card(b),
        "card_differences": keys,
        "pixels": None if keys else pixel_numbers(a.images, b.images),
    }


def _card(samples: Samples) -> dict[str, Any]:
    keys = (*CARD, "backend", "device", "weights_sha256", "network_calls", "seconds_per_image")
    card = {key: samples.card.get(key) for key in keys if key != "timesteps"}
    return {"folder": samples.folder.resolve().name, "images": len(samples.images), **card}


def pixel_numbers(a: Pixels, b: Pixels) -> dict[str, Any]:
    """Count the differing values of two sets of images (N, ...), and their sizes in levels."""
    count = min(len(a), len(b))
    gap = difference_picture(a[:count], b[:count])
    return {
        "images": count,
        "images_equal": int(np.count_nonzero(~gap.reshape(count, -1).any(axis=1))),
        "values": int(gap.size),
        "values_differing": int(np.count_nonzero(gap)),
        "max_levels": int(gap.max()),
        "mean_levels": float(gap.mean()),
    }


def difference_picture(a: Pixels, b: Pixels) -> Pixels:
    """|a - b| in uint8 levels, with the same shape."""
    gap: Pixels = np.abs(a.astype(np.int16) - b.astype(np.int16)).astype(np.uint8)
    return gap


def grid(images: Pixels, side: int = SIDE) -> Pixels:
    """The first side * side images as one picture, row by row, with a gap of one pixel.

    Args:
        images: (N, H, W) or (N, H, W, 3), uint8; missing images stay black.

    Returns:
        (rows * (H + 1) - 1, side * (W + 1) - 1) or the same with 3 channels, uint8; rows is `side`
        or fewer.
    """
    height, width, *channels = images.shape[1:]
    rows = min(side, -(-len(images) // side))
    picture = np.zeros((rows * (height + 1), side * (width + 1), *channels), np.uint8)
    for i, image in enumerate(images[: side * side]):
        top, left = i // side * (height + 1), i % side * (width + 1)
        picture[top : top + height, left : left + width] = image
    return picture[:-1, :-1]
