"""Wrappers of `denoise`, for each prediction type and for limits on the implied image.

A solver needs eps. Networks that predict the image or the velocity, and limits on the implied
image, are wrapped to return eps; so each is written once for all solvers.

If nothing of the image is left (alpha 0), eps is x itself and carries no information about the
image; the other predictions do. So these wrappers also give the image, for the loop to use there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import numpy as np

from diptych.diffusion.process import eps_from_v, eps_from_x0, x0_from_eps, x0_from_v
from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.types import A, Array


@dataclass(frozen=True)
class Denoiser(Generic[A]):
    """A `denoise` that can also return the image: two ways to read one network call."""

    eps: Callable[[A, Level], A]
    image: Callable[[A, Level], A]
    limit: Callable[[A], A] | None = None  # of the implied image; eps itself is kept

    def __call__(self, x: A, level: Level) -> A:
        """eps of images at a level."""
        return self.eps(x, level)


def image_of(denoise: Callable[[A, Level], A], x: A, level: Level) -> A:
    """The image that a prediction implies, from one network call.

    Raises:
        UserError: alpha is 0, and `denoise` only gives eps.
    """
    if isinstance(denoise, Denoiser):
        image: A = denoise.image(x, level)
        return image
    require_image(level)
    return x0_from_eps(x, denoise(x, level), level)


def require_image(now: Level) -> None:
    """Raise UserError if a step would divide by an alpha of 0."""
    if now.alpha == 0.0:
        raise UserError(
            f"at t={now.t} the schedule leaves nothing of the image, and the solver divides by it; "
            f"use another schedule, or a spacing that starts lower"
        )


def compared(denoise: Callable[[A, Level], A]) -> Callable[[A, Level], A]:
    """Wrap `denoise` to check that its output has the shape of its images.

    Arrays of other shapes would be broadcast silently. The loop only checks the first step.
    """
    if isinstance(denoise, Denoiser):
        return Denoiser(compared(denoise.eps), compared(denoise.image), denoise.limit)

    def ask(x: A, level: Level) -> A:
        answer = denoise(x, level)
        check_shape("the network's answer", answer, x)
        return answer

    return ask


def check_shape(what: str, found: Any, x: Any) -> None:
    """Raise UserError unless `found` has the shape of the images x."""
    got, wanted = (tuple(getattr(array, "shape", ())) for array in (found, x))
    if got != wanted:
        raise UserError(
            f"{what} is a {type(found).__name__} of shape {got}, but the images have shape "
            f"{wanted}; it must have a number for each of theirs"
        )


def from_x0(predict: Callable[[A, Level], A]) -> Denoiser[A]:
    """`denoise` of a network that predicts the clean image."""
    predict = compared(predict)
    return Denoiser(lambda x, level: eps_from_x0(x, predict(x, level), level), predict)


def from_v(predict: Callable[[A, Level], A]) -> Denoiser[A]:
    """`denoise` of a network that predicts the velocity v = alpha eps - sigma x0."""
    predict = compared(predict)
    return Denoiser(
        lambda x, level: eps_from_v(x, predict(x, level), level),
        lambda x, level: x0_from_v(x, predict(x, level), level),
    )


def limited(denoise: Callable[[A, Level], A], limit: Callable[[A], A]) -> Denoiser[A]:
    """Wrap `denoise` to pass its implied image through `limit`.

    Clipping is `limited(denoise, lambda x0: x0.clip(-1, 1))`. The eps that results is the one that
    leads from x to the limited image (diffusers' DDIM does so with `use_clipped_model_output`).
    """

    def image(x: A, level: Level) -> A:
        found = limit(image_of(denoise, x, level))
        check_shape("the limited image", found, x)
        return found

    return Denoiser(lambda x, level: eps_from_x0(x, image(x, level), level), image)


def image_limited(denoise: Callable[[A, Level], A], limit: Callable[[A], A]) -> Denoiser[A]:
    """Wrap `denoise` to pass its implied image through `limit` but keep eps as predicted.

    DDIM then moves from the limited image along the predicted eps, so the two no longer lead back
    to x. (diffusers' DDIM does so with `clip_sample`.) Other solvers only ask for eps.
    """
    return Denoiser(denoise, lambda x, level: limit(image_of(denoise, x, level)), limit)


def implied(denoise: Callable[[A, Level], A], x: A, eps: A, level: Level) -> A:
    """The image implied by this eps of `denoise`, after its limit if it has one."""
    image = x0_from_eps(x, eps, level)
    limit = denoise.limit if isinstance(denoise, Denoiser) else None
    return image if limit is None else limit(image)


def dynamic_threshold(x0: Array, quantile: float) -> Array:
    """Each image clipped to [-s, s] and divided by s, s its quantile of |x0|, or 1 if below.

    Args:
        x0: images, (B, ...), on the host: both backends get the same bits. docs/solvers.md has
            the line for arrays of a framework.
        quantile: in (0, 1]; interpolated linearly between two values.

    Raises:
        UserError: x0 is not a NumPy array, or the quantile is outside (0, 1].

    Source: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """
    if not isinstance(x0, np.ndarray):
        raise UserError(
            f"dynamic_threshold takes a NumPy array, not {type(x0).__module__}.{type(x0).__name__};"
            f" give it x0.numpy() and make its answer an array of the framework again"
        )
    if not 0 < quantile <= 1:
        raise UserError(f"threshold is {quantile}; it is a quantile, above 0 and up to 1")
    sizes = np.quantile(np.abs(x0).reshape(len(x0), -1).astype(np.float64), quantile, axis=1)
    s = np.maximum(sizes, 1.0).astype(x0.dtype).reshape(-1, *[1] * (x0.ndim - 1))
    limited_images: Array = np.clip(x0, -s, s) / s
    return limited_images
