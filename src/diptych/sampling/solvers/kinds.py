"""The solvers by name, with the choices of each; the limits come from the rule's `needs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diptych.diffusion.schedule import Schedule
from diptych.diffusion.timesteps import ALL_SPACINGS, REPEATING
from diptych.sampling.solvers.checks import Needs
from diptych.sampling.solvers.ddim import Ddim
from diptych.sampling.solvers.ddpm import Ddpm
from diptych.sampling.solvers.deis import Deis
from diptych.sampling.solvers.dpmpp import DpmSolverPP, DpmSolverPPSde
from diptych.sampling.solvers.euler import Euler
from diptych.sampling.solvers.heun import Heun
from diptych.sampling.solvers.ipndm import Ipndm
from diptych.sampling.solvers.multistep import Multistep
from diptych.sampling.solvers.plms import Plms
from diptych.sampling.solvers.pndm import Pndm
from diptych.sampling.solvers.solver import Solver
from diptych.sampling.solvers.unipc import UniPC

EQUAL_STEPS = ("uniform", "trailing")
_UNUSED = Schedule(*np.ones((3, 1)))  # for rules that only report their needs and take no step


@dataclass(frozen=True)
class Kind:
    """A named solver and its choices.

    Attributes:
        make: makes the solver from (eta, order, schedule).
        noise: the kind of noise that it adds: none, posterior, large, or eta for "as asked".
        orders: the available orders, the default first; empty if there is no choice.
        all_timesteps: visits every timestep unless steps is given.
        clips: always clips the implied image.
    """

    make: Callable[[float, int, Schedule], Solver]
    noise: str = "none"
    orders: tuple[int, ...] = ()
    all_timesteps: bool = False
    clips: bool = False

    def needs(self, order: int | None = None) -> Needs:
        """Requirements of the solver with this order, or with the default order if None."""
        return self.make(0.0, order or (self.orders or (0,))[0], _UNUSED).needs

    @property
    def spacings(self) -> tuple[str, ...] | None:
        """Spacings that the solver can use; None means all without repeats."""
        return EQUAL_STEPS if self.needs().equal else None

    @property
    def usable(self) -> tuple[str, ...]:
        """The names of all spacings that it can use."""
        return self.spacings or tuple(
            name for name in ALL_SPACINGS if self.repeats or name not in REPEATING
        )

    @property
    def multistep(self) -> bool:
        """True if it extrapolates in log(alpha / sigma) and so has `euler_at_final`."""
        return isinstance(self.make(0.0, (self.orders or (0,))[0], _UNUSED), Multistep)

    @property
    def repeats(self) -> bool:
        """True if a timestep may occur twice."""
        return self.needs().repeats


def _ancestral(make: Callable[[], Solver], noise: str, clips: bool = False) -> Kind:
    return Kind(lambda eta, order, table: make(), noise, all_timesteps=True, clips=clips)


KINDS: dict[str, Kind] = {
    "ddim": Kind(lambda eta, order, table: Ddim(eta), "eta"),
    "ddpm": _ancestral(lambda: Ddpm("small"), "posterior"),
    "ddpm-large": _ancestral(lambda: Ddpm("large"), "large"),
    "ddpm-noisy": _ancestral(lambda: Ddpm("large"), "large", clips=True),
    "deis": Kind(lambda eta, order, table: Deis(order), orders=(2, 3)),
    "dpmpp": Kind(lambda eta, order, table: DpmSolverPP(order), orders=(2, 3)),
    "dpmpp-sde": Kind(lambda eta, order, table: DpmSolverPPSde(), "posterior"),
    "euler": Kind(lambda eta, order, table: Euler()),
    "heun": Kind(lambda eta, order, table: Heun()),
    "ipndm": Kind(lambda eta, order, table: Ipndm(order), orders=(4, 2, 3)),
    "plms": Kind(lambda eta, order, table: Plms()),
    "pndm": Kind(lambda eta, order, table: Pndm(table.level)),
    "unipc": Kind(lambda eta, order, table: UniPC(order), orders=(2, 3)),
}
