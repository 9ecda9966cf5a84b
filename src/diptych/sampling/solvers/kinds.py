"""The solvers by name, and what each can take: orders, spacings, numbers of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diptych.diffusion.schedule import Schedule
from diptych.sampling.solvers.ddim import Ddim
from diptych.sampling.solvers.ddpm import Ddpm
from diptych.sampling.solvers.dpmpp import DpmSolverPP, DpmSolverPPSde
from diptych.sampling.solvers.euler import Euler
from diptych.sampling.solvers.heun import Heun
from diptych.sampling.solvers.plms import Plms
from diptych.sampling.solvers.pndm import Pndm
from diptych.sampling.solvers.solver import Solver
from diptych.sampling.solvers.unipc import UniPC

EQUAL_STEPS = ("uniform", "trailing")


@dataclass(frozen=True)
class Kind:
    """What a named solver is.

    Attributes:
        make: the solver from (eta, order, schedule).
        noise: the kind of noise that it adds: none, posterior, large, or eta for "as asked".
        orders: those to choose from, the default first; empty where there is no choice.
        least: the fewest steps.
        spacings: those that it can use; None for every one without repeats.
        repeats: whether a timestep may come twice.
        all_timesteps: takes every timestep unless told otherwise.
        clips: always clips the implied image.
    """

    make: Callable[[float, int, Schedule], Solver]
    noise: str = "none"
    orders: tuple[int, ...] = ()
    least: int = 1
    spacings: tuple[str, ...] | None = None
    repeats: bool = False
    all_timesteps: bool = False
    clips: bool = False


def _ancestral(make: Callable[[], Solver], noise: str, clips: bool = False) -> Kind:
    return Kind(
        lambda eta, order, table: make(), noise, repeats=True, all_timesteps=True, clips=clips
    )


KINDS: dict[str, Kind] = {
    "ddim": Kind(lambda eta, order, table: Ddim(eta), "eta", repeats=True),
    "ddpm": _ancestral(lambda: Ddpm("small"), "posterior"),
    "ddpm-large": _ancestral(lambda: Ddpm("large"), "large"),
    "ddpm-noisy": _ancestral(lambda: Ddpm("large"), "large", clips=True),
    "dpmpp": Kind(lambda eta, order, table: DpmSolverPP(order), orders=(2, 3)),
    "dpmpp-sde": Kind(lambda eta, order, table: DpmSolverPPSde(), "posterior", least=2),
    "euler": Kind(lambda eta, order, table: Euler()),
    "heun": Kind(lambda eta, order, table: Heun()),
    "plms": Kind(lambda eta, order, table: Plms(), least=2, spacings=EQUAL_STEPS),
    "pndm": Kind(lambda eta, order, table: Pndm(table.level), least=4, spacings=EQUAL_STEPS),
    "unipc": Kind(lambda eta, order, table: UniPC(order), orders=(2, 3)),
}
