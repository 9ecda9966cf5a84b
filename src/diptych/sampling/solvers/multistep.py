"""The order of a multistep rule's next step: that of the past predictions, lower at the end.

A rule of order p draws a polynomial through its last p predictions and follows it over a step of
length h in lambda = log(alpha / sigma). The step to the clean image has order 1, for h is infinite.
The two options have the names and the meaning of diffusers' schedulers:

    lower_order_final   a trajectory of few steps ends on orders 2 and 1
    euler_at_final      the last step between two noisy levels has order 1; None: if it is long

A step is long if h is more than LONG times that of the step before: the polynomial would be
followed far beyond the predictions it goes through. With `uniform` timesteps the step to t=0 is 3.5
to 4.7 times as long, with the other spacings up to 2.03 times. What that one step did to the score
of the package's MNIST network stands in CHANGELOG.md; the count of steps does not tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers.checks import Needs, check_order
from diptych.sampling.solvers.solver import Solver, Step, half_log_snr
from diptych.types import A

LONG = 2.5


@dataclass(frozen=True)
class Multistep(Solver):
    """A rule of order 1 .. MOST with one network call a step; see above for the options."""

    order: int = 2
    lower_order_final: bool = True
    euler_at_final: bool | None = None
    MOST: ClassVar[int] = 3
    FEW: ClassVar[float] = 15  # a trajectory of fewer steps is of few

    def __post_init__(self) -> None:
        check_order(type(self).__name__, self.order, self.MOST)

    @property
    def needs(self) -> Needs:
        """As many steps as its order."""
        return Needs(self.order)

    def order_at(self, s: Step[A]) -> int:
        """The order of this step; its prediction is in the memory already."""
        memory = s.memory
        if s.after.sigma == 0.0:
            return 1
        is_last = memory.left <= 1 + memory.clean
        if is_last and self.is_euler([*(level for level, _ in memory.past[-2:]), s.after]):
            return 1
        few = self.lower_order_final and memory.steps < self.FEW
        return min(self.order, len(memory.past), memory.left if few else self.order)

    def is_euler(self, levels: Sequence[Level]) -> bool:
        """True if the last step between noisy levels, from `levels[-2]` to [-1], has order 1."""
        if self.euler_at_final is not None:
            return self.euler_at_final
        if len(levels) < 3:
            return False
        before, now, after = map(half_log_snr, levels[-3:])
        return after - now > LONG * (now - before)

    def ends_with_euler(self, levels: Sequence[Level]) -> bool:
        """True if `euler_at_final` lowers an order on these levels, noisy to clean."""
        noisy = [level for level in levels if level.alpha > 0.0 and level.sigma > 0.0]
        return self.order > 1 and len(noisy) > 2 and self.is_euler(noisy)
