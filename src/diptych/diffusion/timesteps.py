"""Timestep spacings: by timestep, by noise level, and the official one.

    uniform, quad, trailing     by timestep only (`diptych.diffusion.schedule.make_spacing`)
    logsnr                      equal steps of lambda = log(alpha / sigma)
    karras                      equal steps of (sigma / alpha)^(1/7)
    official-quad               the official code's `quad`, including the timesteps it visits twice
    940,600,250,20              these timesteps, from noisy to clean; `@HASH` after them: of the
                                schedule's alpha there, so that another schedule is refused

`logsnr` and `karras` go from the noisiest level of the table to the cleanest. They are defined at
levels between timesteps. The nearest timesteps are used, all different, so the network is only
called at timesteps it was trained on. Sources: Lu et al. 2022, arXiv:2206.00927, section 3.3;
Karras et al. 2022, arXiv:2206.00364, equation 5, rho 7.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from diptych.diffusion.schedule import SPACINGS, Schedule, make_spacing
from diptych.errors import UserError, nearest
from diptych.types import Float64

BY_LEVEL = ("logsnr", "karras")
REPEATING = ("official-quad",)
ALL_SPACINGS = (*SPACINGS, *BY_LEVEL, *REPEATING)
RHO = 7.0
_LIST = re.compile(r"(\d{1,7}(?:,\d{1,7})*)(?:@[0-9a-f]{8})?")


def check_spacing(
    name: str, steps: int, timesteps: int, usable: Sequence[str] = ALL_SPACINGS
) -> None:
    """Check a spacing's name and S. Raises UserError: an unknown name, S < 1, or S > T.

    The error suggests one of `usable`: the solver at hand may not take every spacing. A list of
    timesteps must have S of them, falling, below T.
    """
    listed = listed_timesteps(name)
    if listed is None and name not in ALL_SPACINGS:
        raise UserError(f"spacing '{name}' is not known{nearest(name, list(usable))}")
    make_spacing("uniform", steps, timesteps)
    if listed is None:
        return
    if any(a <= b for a, b in pairwise(listed)) or listed[0] >= timesteps:
        raise UserError(
            f"spacing {name}: the timesteps must fall from noisy to clean, each once, within "
            f"{timesteps - 1} .. 0"
        )
    if len(listed) != steps:
        raise UserError(
            f"spacing {name} has {len(listed)} timesteps, {steps} steps are asked for; "
            f"leave out --steps, or give --steps {len(listed)}"
        )


def listed_timesteps(name: str) -> list[int] | None:
    """The timesteps of a spacing that lists them, from noisy to clean; None for any other name."""
    found = _LIST.fullmatch(name)
    return None if found is None else [int(t) for t in found[1].split(",")]


def listing(timesteps: Sequence[int], schedule: Schedule) -> str:
    """The spacing of these timesteps, from noisy to clean, of this schedule and no other."""
    numbers = ",".join(map(str, timesteps))
    there = ",".join(f"{schedule.alpha[t]:.6e}" for t in timesteps)
    return f"{numbers}@{hashlib.sha256(there.encode()).hexdigest()[:8]}"


def choose_timesteps(name: str, steps: int, schedule: Schedule) -> list[int]:
    """Exactly `steps` timesteps in ascending order, each in 0 .. T-1.

    They are all different, except with `official-quad`.

    Raises:
        UserError: an unknown name, S < 1, S > T, or more steps than the table has levels with
            alpha > 0.
    """
    check_spacing(name, steps, schedule.timesteps)
    if listed := listed_timesteps(name):
        if "@" in name and name != listing(listed, schedule):
            raise UserError(
                f"spacing {name} was found for another schedule than this model's: at these "
                f"timesteps its levels differ; search anew, or give the numbers alone"
            )
        return listed[::-1]
    if name in SPACINGS:
        return make_spacing(name, steps, schedule.timesteps)
    if name == "official-quad":
        roots = np.linspace(0.0, math.sqrt(schedule.timesteps * 0.8), steps)
        return [min(int(t), schedule.timesteps - 1) for t in (roots**2).tolist()]
    return _nearest_levels(name, steps, schedule)


def _nearest_levels(name: str, steps: int, schedule: Schedule) -> list[int]:
    usable = int(np.count_nonzero(schedule.alpha > 0))
    if steps > usable:
        raise UserError(
            f"spacing '{name}' needs levels with something of the image left: this schedule has "
            f"{usable}, {steps} steps are asked for"
        )
    logs = np.log(schedule.sigma[:usable] / schedule.alpha[:usable])
    ramp = np.linspace(0.0, 1.0, steps)
    if name == "logsnr":
        wanted = logs[-1] + ramp * (logs[0] - logs[-1])
    else:
        high, low = math.exp(logs[-1] / RHO), math.exp(logs[0] / RHO)
        wanted = RHO * np.log(high + ramp * (low - high))
    return _distinct(np.interp(wanted[::-1], logs, np.arange(usable)), usable)


def _distinct(wanted: Float64, usable: int) -> list[int]:
    """The nearest timesteps, ascending; a timestep already used moves up to the next free one."""
    chosen: list[int] = []
    for i, t in enumerate(np.rint(wanted).astype(int).tolist()):
        lowest = chosen[-1] + 1 if chosen else 0
        chosen.append(min(max(t, lowest), usable - len(wanted) + i))
    return chosen
