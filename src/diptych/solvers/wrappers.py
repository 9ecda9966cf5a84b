"""Wrappers of `denoise`: what a network predicts, and limits on the image that it implies.

A solver asks for eps. A network that predicts the image or the velocity, and any limit on the
implied image, is made to answer in eps; so each is written once for all solvers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.process import A, eps_from_v, eps_from_x0, x0_from_eps
from diptych.schedule import Level


def from_x0(predict: Callable[[A, Level], A]) -> Callable[[A, Level], A]:
    """`denoise` of a network that predicts the clean image."""
    return lambda x, level: eps_from_x0(x, predict(x, level), level)


def from_v(predict: Callable[[A, Level], A]) -> Callable[[A, Level], A]:
    """`denoise` of a network that predicts the velocity v = alpha eps - sigma x0."""
    return lambda x, level: eps_from_v(x, predict(x, level), level)


def limited(denoise: Callable[[A, Level], A], limit: Callable[[A], A]) -> Callable[[A, Level], A]:
    """`denoise` after the image that it implies went through `limit`.

    Clipping is `limited(denoise, lambda x0: x0.clip(-1, 1))`. The eps that results is the one that
    leads from x to the limited image (diffusers' DDIM does so with `use_clipped_model_output`).
    """

    def limited_denoise(x: A, level: Level) -> A:
        x0 = limit(x0_from_eps(x, denoise(x, level), level))
        return eps_from_x0(x, x0, level)

    return limited_denoise


def dynamic_threshold(x0: npt.NDArray[Any], quantile: float) -> npt.NDArray[Any]:
    """Each image clipped to [-s, s] and divided by s, s its quantile of |x0|, or 1 if below.

    Args:
        x0: images, (B, C, H, W), on the host: both panels compute the same bits.
        quantile: in (0, 1]; interpolated linearly between two values.

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """
    sizes = np.quantile(np.abs(x0).reshape(len(x0), -1).astype(np.float64), quantile, axis=1)
    s = np.maximum(sizes, 1.0).astype(x0.dtype).reshape(-1, 1, 1, 1)
    limited_images: npt.NDArray[Any] = np.clip(x0, -s, s) / s
    return limited_images
