"""DDIM inversion: from an image to the noise that a deterministic solver would turn into it.

    x' = (alpha' / alpha) x + (sigma' - (alpha' / alpha) sigma) eps(x*, t')

The same straight move as DDIM at eta 0, walked from clean to noisy. DDIM's own step back from x'
asks the network at (x', t'), which is not known yet: x* = x is the plain inversion, and each round
of `refine` puts the x' just found in its place, which is the step's fixed point iteration. The
timestep is that of the noisier level in both directions, so only x* - x' separates the two; it
falls with the length of a step, and so does the error of the round trip.

Source: Song et al. 2021, arXiv:2010.02502, sections 4.3 and 5.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from diptych.process import A
from diptych.schedule import Level
from diptych.solvers.solver import flow


def invert(
    denoise: Callable[[A, Level], A],
    x: A,
    levels: Sequence[Level],
    refine: int = 0,
    observe: Callable[[int, Level, A], None] | None = None,
) -> A:
    """Images at the last level from images at the first, without noise.

    Args:
        denoise: predicts eps, shaped as x, from images and their level.
        x: images at the first level, (B, C, H, W).
        levels: from clean (`diptych.schedule.CLEAN` for images) to noisy: the levels of `solve` at
            eta 0 in the opposite order.
        refine: more network calls a step, each of which brings the step nearer to the exact one.
        observe: called after each step with (k, the level reached, the images there).

    Returns:
        The images at the noisiest level. `len(levels) - 1` steps of `1 + refine` calls each.
    """
    for k, (now, after) in enumerate(pairwise(levels)):
        reached = x
        for _ in range(1 + refine):
            reached = flow(x, denoise(reached, after), now, after)
        x = reached
        if observe is not None:
            observe(k, after, x)
    return x
