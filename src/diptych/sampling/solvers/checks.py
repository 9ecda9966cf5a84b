"""What a solver asks of its settings and of the levels that it walks, before the first call.

    lambda = log(alpha / sigma) rises from level to level; equal neighbours are a step of length 0,
    which divides by zero in the multistep rules

A rule that needs more says so in an attribute `needs`; one without it takes any levels that do not
turn back. (The command line refuses spacings by name: `diptych.sampling.solvers.kinds`.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diptych.diffusion.schedule import Level
from diptych.errors import UserError

NEARLY = 1e-6  # relative; steps of sigma / alpha that a user computed are equal up to rounding


@dataclass(frozen=True)
class Needs:
    """What a rule asks of a trajectory.

    Attributes:
        steps: the fewest; a first step out of noise alone, which no rule takes, does not count.
        repeats: whether neighbouring levels may be equal.
        equal: whether steps must be of equal length, in t or in sigma / alpha.
    """

    steps: int = 1
    repeats: bool = False
    equal: bool = False


def check_order(name: str, order: int, most: int) -> None:
    """Raises UserError where the solver called `name` has no such order; it has 1 .. `most`."""
    if order not in range(1, most + 1):
        raise UserError(f"{name} has orders 1 to {most}, not {order}; give one of these")


def check_levels(solver: object, levels: Sequence[Level], knows_image: bool) -> None:
    """Raises UserError where `solver` cannot walk these levels; no step at all is no error.

    Args:
        solver: any; its `needs` are looked at, if it has some.
        levels: as given to `diptych.sampling.solvers.solve`.
        knows_image: whether the network can be asked for the image where alpha is 0.
    """
    needs: Needs = getattr(solver, "needs", Needs(repeats=True))
    name = type(solver).__name__
    check_way(levels, name, needs.repeats)
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


def check_way(levels: Sequence[Level], name: str, repeats: bool = False, up: bool = False) -> None:
    """Raises UserError unless the levels go one way, from noisy to clean or, `up`, to noisy."""
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
        rise = after.alpha * now.sigma - now.alpha * after.sigma  # of alpha / sigma, but its scale
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
    """In t up to its rounding, or in sigma / alpha; the step to a clean image has any length."""
    noisy = [level for level in levels if level.sigma > 0.0 and level.alpha > 0.0]
    times = [a.t - b.t for a, b in pairwise(noisy)] or [0]
    ratios = [a.sigma / a.alpha - b.sigma / b.alpha for a, b in pairwise(noisy)] or [0.0]
    return max(times) - min(times) <= 1 or max(ratios) - min(ratios) <= NEARLY * max(ratios)
