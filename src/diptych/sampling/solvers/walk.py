"""Whether a solver can walk the levels chosen for it: asked before the first network call.

DDIM's step keeps sqrt(sigma'^2 - s^2) of the predicted noise and adds s = eta b new noise, so

    eta <= sigma' / b,      b = (sigma' / sigma) sqrt(1 - (alpha / alpha')^2)

must hold for every pair of neighbouring levels. The bound is 1 or a little above, and the tighter
the longer the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from diptych.diffusion.schedule import CLEAN, Level, Schedule
from diptych.errors import UserError
from diptych.sampling.solvers import Ddim, Solver


def most_eta(now: Level, after: Level) -> float:
    """The largest eta of the step from `now` to `after`; infinite to the clean image."""
    added = Ddim(1.0).noise_scale(now, after)
    return after.sigma / added if added > 0 else float("inf")


def check_noise(solver: Solver, eta: float, timesteps: Sequence[int], schedule: Schedule) -> None:
    """Raises UserError where DDIM with this eta adds more noise than some level holds.

    Args:
        solver: any; only `Ddim` is asked.
        eta: its noise, as given.
        timesteps: from noisy to clean; the clean image follows.
        schedule: of the model.
    """
    if not isinstance(solver, Ddim) or eta <= 1.0:
        return
    levels = [*map(schedule.level, timesteps), CLEAN]
    most, now, after = min(
        ((most_eta(a, b), a.t, b.t) for a, b in pairwise(levels)), key=lambda found: found[0]
    )
    if eta > most * (1 + 1e-12):
        raise UserError(
            f"eta {eta:g} asks for more noise than is left between t={now} and t={after}; "
            f"with these timesteps it can be {int(most * 1000) / 1000:g} at most"
        )


def check_start(level: int | None, steps: int, timesteps: Sequence[int]) -> None:
    """Raises UserError where a trajectory that starts at a level has no timestep to start from.

    Args:
        level: a timestep, -1 for the clean image, None for a whole trajectory.
        steps: those of the whole trajectory.
        timesteps: of the whole trajectory, in any order.
    """
    if level is not None and level >= 0 and min(timesteps) > level:
        raise UserError(
            f"level t={level} lies below the lowest of these {steps} timesteps, "
            f"t={min(timesteps)}; give more steps, another spacing, or a higher level"
        )
