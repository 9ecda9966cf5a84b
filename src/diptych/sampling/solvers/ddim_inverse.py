"""DDIM inversion, from an image to the noise from which a deterministic solver generates it.

    x' = (alpha' / alpha) x + (sigma' - (alpha' / alpha) sigma) eps(x*, t')

This is the straight move of DDIM at eta 0, from clean to noisy. DDIM's own step back from x' calls
the network at (x', t'), which is not known yet: plain inversion takes x* = x, and each round of
`refine` replaces x* with the x' just found, the step's fixed-point iteration. Both directions use
the timestep of the noisier level, so they only differ by x* - x', which shrinks with the length of
a step, and so does the error of the round trip.

At a level where nothing of the image is left (alpha' = 0), eps is x* itself, and the move would
return its own input. The step back out of that level is x = alpha x0(x') + sigma x', so

    x' = (x - alpha x0(x*, t')) / sigma

with x0 the image that the network predicts from pure noise.

Source: Song et al. 2021, arXiv:2010.02502, sections 4.3 and 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.sampling.solvers.checks import check_direction
from diptych.sampling.solvers.solver import flow
from diptych.sampling.solvers.wrappers import Denoiser, compared, image_of, require_image
from diptych.types import A


def invert(
    denoise: Callable[[A, Level], A],
    x: A,
    levels: Sequence[Level],
    refine: int = 0,
    observe: Callable[[int, Level, A], None] | None = None,
) -> A:
    """Encode images at the first level as images at the last, without adding noise.

    Args:
        denoise: predicts eps, shaped as x, from images and their level.
        x: images at the first level, (B, C, H, W).
        levels: from clean (`diptych.diffusion.schedule.CLEAN` for images) to noisy: the levels of
            `solve` at eta 0 in the opposite order.
        refine: extra network calls per step; each brings the step closer to the exact one.
        observe: called after each step with (k, the level reached, the images there).

    Returns:
        The images at the noisiest level. `len(levels) - 1` steps of `1 + refine` calls each.

    Raises:
        UserError: levels go from noisy to clean or repeat; refine is below 0; the last level is
            pure noise (alpha 0) and the network predicts eps, or the step starts at a clean image.
    """
    check_direction(levels, "invert", up=True)
    if refine < 0:
        raise UserError(f"refine is {refine}; it must be 0 or more rounds")
    _check_end(denoise, levels)
    for k, (now, after) in enumerate(pairwise(levels)):
        ask = compared(denoise) if k == 0 else denoise
        reached = x
        for _ in range(1 + refine):
            reached = _moved(x, reached, ask, now, after)
        x = reached
        if observe is not None:
            observe(k, after, x)
    return x


def _moved(x: A, there: A, denoise: Callable[[A, Level], A], now: Level, after: Level) -> A:
    """x' from x, with the network called at the noisier level on the images `there`."""
    if after.alpha > 0.0:
        return flow(x, denoise(there, after), now, after)
    image = image_of(denoise, there, after)
    return (1.0 / now.sigma) * x + (-now.alpha / now.sigma) * image


def _check_end(denoise: Callable[[A, Level], A], levels: Sequence[Level]) -> None:
    """Raise UserError if the last step leads to pure noise and cannot be taken."""
    if len(levels) < 2 or levels[-1].alpha > 0.0:
        return
    if not isinstance(denoise, Denoiser):
        require_image(levels[-1])
    if levels[-2].sigma == 0.0:
        raise UserError(
            f"the step from a clean image to noise alone (t={levels[-1].t}) cannot be inverted: "
            f"any noise leads to that image; give 2 steps or more"
        )
