"""Checks of a solver's settings and levels, made before the first network call.

    lambda = log(alpha / sigma) rises from level to level; equal neighbours are a step of length 0,
    which divides by zero in the multistep rules

A rule that needs more, or takes repeated levels, says so in `needs`. DDIM's step keeps
sqrt(sigma'^2 - s^2) of the predicted noise and adds s = eta b new noise, so that

    eta <= sigma' / b,      b = (sigma' / sigma) sqrt(1 - (alpha / alpha')^2)

must hold for every pair of neighbouring levels. The bound is 1 or a little above; longer steps have
a tighter bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diptych.diffusion.schedule import Level
from diptych.errors import UserError

NEARLY = 1e-6  # relative; steps of sigma / alpha that a user computed are equal up to rounding


@dataclass(frozen=True)
class Needs:
    """Requirements of a rule on a trajectory.

    Attributes:
        steps: the minimum. A first step from pure noise (alpha = 0) is not counted: the loop
            performs it.
        repeats: neighbouring levels may be equal.
        equal: steps must have equal length, in t or in sigma / alpha.
    """

    steps: int = 1
    repeats: bool = False
    equal: bool = False


def check_order(name: str, order: int, most: int) -> None:
    """Raise UserError unless `order` is in 1 .. `most`, the orders of the solver called `name`."""
    if order not in range(1, most + 1):
        raise UserError(f"{name} has orders 1 to {most}, not {order}; give one of these")


def check_levels(needs: Needs, name: str, levels: Sequence[Level], knows_image: bool) -> None:
    """Raise UserError if a solver cannot take these levels; zero steps are allowed.

    Args:
        needs: the solver's requirements.
        name: the solver's name, for the message.
        levels: as given to `diptych.sampling.solvers.solve`.
        knows_image: the network can predict the image at alpha = 0.
    """
    check_direction(levels, name, needs.repeats)
    in_noise = knows_image and levels[0].alpha == 0.0
    steps = len(levels) - 1 - in_noise
    if needs.steps > 1 and len(levels) > 1 and steps < needs.steps:
        after = " after the one out of noise alone" if in_noise else ""
        raise UserError(
            f"{name} needs {needs.steps} steps or more{after}, not {steps}; "
            f"give more levels, or use Ddim"
        )
    if needs.equal and not _equal_steps(levels):
        raise UserError(
            f"{name} needs steps of equal length, which these levels do not have; use the spacing "
            f"uniform or trailing, or another solver"
        )


def check_direction(
    levels: Sequence[Level], name: str, repeats: bool = False, up: bool = False
) -> None:
    """Raise UserError unless the levels go from noisy to clean or, `up`, from clean to noisy."""
    way = "from clean to noisy" if up else "from noisy to clean"
    if not levels:
        raise UserError(f"levels is empty; {name} needs those of the way {way}, both ends included")
    for k, level in enumerate(levels):
        numbers = (level.alpha, level.sigma) if isinstance(level, Level) else (math.nan,)
        if not all(0.0 <= number < math.inf for number in numbers):
            raise UserError(
                f"levels[{k}] is {level}; it must be a Level of alpha and sigma, finite and 0 or "
                f"more: take schedule.level(t), or "
                f"diptych.diffusion.schedule.CLEAN at the clean end"
            )
    for first, second in pairwise(levels):
        now, after = (second, first) if up else (first, second)
        rise = after.alpha * now.sigma - now.alpha * after.sigma  # the sign of alpha / sigma's rise
        if rise < 0.0:
            other = "solve" if up else "invert"
            raise UserError(
                f"levels go from t={first.t} to t={second.t}, which is "
                f"{'cleaner' if up else 'noisier'}; {name} takes them {way}, {other} the other way"
            )
        if rise == 0.0 and (now.sigma == 0.0 or not repeats):
            raise UserError(
                f"levels come twice (t={first.t}, t={second.t}), which {name} cannot take; "
                f"leave one out, or sample with Ddim or Ddpm"
            )


def _equal_steps(levels: Sequence[Level]) -> bool:
    """True if steps are equal in t, up to rounding, or in sigma / alpha; ignores a clean end."""
    noisy = [level for level in levels if level.sigma > 0.0 and level.alpha > 0.0]
    times = [a.t - b.t for a, b in pairwise(noisy)] or [0]
    ratios = [a.sigma / a.alpha - b.sigma / b.alpha for a, b in pairwise(noisy)] or [0.0]
    return max(times) - min(times) <= 1 or max(ratios) - min(ratios) <= NEARLY * max(ratios)


def check_eta(
    eta: float, noise_scale: Callable[[Level, Level], float], levels: Sequence[Level]
) -> None:
    """Raise UserError if DDIM's noise exceeds the noise of some level.

    Args:
        eta: as given; values up to 1 always fit.
        noise_scale: DDIM's noise scale with this eta.
        levels: from noisy to the clean image.
    """
    if eta <= 1.0:
        return
    added = [(noise_scale(a, b), a, b) for a, b in pairwise(levels)]
    # The step to the clean image adds no noise.
    bounds = [(eta * b.sigma / scale, a.t, b.t) for scale, a, b in added if scale > 0]
    most, now, after = min(bounds, key=lambda found: found[0], default=(math.inf, 0, 0))
    if eta > most * (1 + 1e-12):
        raise UserError(
            f"eta {eta:g} asks for more noise than is left between t={now} and t={after}; "
            f"with these timesteps it can be {int(most * 1000) / 1000:g} at most"
        )


def check_start(level: int | None, steps: int, timesteps: Sequence[int]) -> None:
    """Raise UserError if a trajectory from this level has no timestep to start from.

    Args:
        level: a timestep, -1 for the clean image, None for a whole trajectory.
        steps: number of steps of the whole trajectory.
        timesteps: those of the whole trajectory, in any order.
    """
    if level is not None and level >= 0 and min(timesteps) > level:
        raise UserError(
            f"level t={level} lies below the lowest of these {steps} timesteps, "
            f"t={min(timesteps)}; give more steps, another spacing, or a higher level"
        )
