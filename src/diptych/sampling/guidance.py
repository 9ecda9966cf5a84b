"""Guidance by a second network, and guidance at some of the levels alone.

    eps = (1 - w) eps_guide + w eps        w = 1: without the guide; above: away from its mistakes

The guide is a less trained or a smaller network of the same data: where the two differ, the better
one is probably right, and w > 1 goes on in that direction. Unlike classifier-free guidance it needs
no classes. Source: Karras et al. 2024, arXiv:2406.02507, equation 4. Guidance at some of the levels
alone leaves the kind of an image to chance, and costs less: Kynkaanniemi et al. 2024,
arXiv:2404.07724.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.sampling.solvers.wrappers import Denoiser, image_of

GUIDE_WEIGHT = 1.5  # if there is a guide and no weight; docs/log.md
NO_GUIDE = "none"  # instead of the guide that a model recommends
Interval = tuple[int, int]


def guided(denoise: Any, guide: Any, weight: float) -> Denoiser[Any]:
    """The prediction of `denoise`, moved away from that of `guide` by the weight."""

    def eps(x: Any, level: Level) -> Any:
        return (1.0 - weight) * guide(x, level) + weight * denoise(x, level)

    def image(x: Any, level: Level) -> Any:
        return (1.0 - weight) * image_of(guide, x, level) + weight * image_of(denoise, x, level)

    return Denoiser(eps, image)


def within(interval: Interval, inside: Any, outside: Any) -> Denoiser[Any]:
    """The predictions of `inside` at timesteps of the interval, its ends too, else of `outside`."""

    def chosen(level: Level) -> Any:
        return inside if interval[0] <= level.t <= interval[1] else outside

    return Denoiser(
        lambda x, level: chosen(level)(x, level),
        lambda x, level: image_of(chosen(level), x, level),
    )


def read_interval(given: str | Sequence[int] | None, timesteps: int) -> Interval | None:
    """The timesteps of `100-650`, or of two numbers; None stays None.

    Raises:
        UserError: anything else, or not in order within 0 .. T-1.
    """
    if given is None:
        return None
    try:
        if isinstance(given, str):
            low, high = map(int, given.split("-"))
        else:
            low, high = map(operator.index, given)
    except (TypeError, ValueError):
        low, high = -1, -1
    if not 0 <= low <= high < timesteps:
        raise UserError(
            f"guidance interval {given!r}; expected two timesteps of 0 to {timesteps - 1}, the "
            f"lower first, as in 100-650"
        )
    return low, high
