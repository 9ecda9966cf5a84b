"""The solver interface, and the one loop that drives every solver on any framework's arrays.

    x = x_T;   for (now, after) in the levels from noisy to clean:   x = solver.step(...)

A step is a linear combination of images, predictions and noise: an array only needs
`array + array` and `float * array`, and every coefficient is a Python float computed in float64. A
multistep solver's memory is passed to it, not kept in it.

A first step from a level where nothing of the image is left (alpha 0) is the same for all solvers:
log(alpha / sigma) is infinite there, and every rule reduces to its first order, which needs the
image itself,

    x' = alpha' x0 + sqrt(sigma'^2 - s^2) x + s noise

and a multistep solver starts after it. It takes one network call.

Without added noise, all solvers follow the same curve, the probability flow of the process:

    d(x / alpha) = eps d(sigma / alpha)        Song et al. 2021, arXiv:2010.02502, equation 14
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Generic

from diptych.diffusion.schedule import Level
from diptych.errors import UserError
from diptych.sampling.solvers.checks import Needs, check_levels
from diptych.sampling.solvers.wrappers import Denoiser, check_shape, compared, image_of
from diptych.sampling.solvers.wrappers import require_image as require_image
from diptych.types import A


@dataclass
class Memory:
    """The memory of one trajectory; the loop makes one and passes it to every step.

    Attributes:
        left: remaining steps, including this one.
        past: (level, prediction) of earlier steps, the newest last; no more than the order needs.
        start: UniPC's corrected images, at the level of the newest prediction.
        order: the order of UniPC's last prediction.
        clean: the last step leads to the clean image.
        steps: those of the whole trajectory.
    """

    left: int
    past: list[tuple[Level, Any]] = field(default_factory=list)
    start: Any = None
    order: int = 0
    clean: bool = True
    steps: int = field(init=False)

    def __post_init__(self) -> None:
        self.steps = self.left

    def remember(self, level: Level, prediction: Any, keep: int) -> None:
        """Add a prediction and forget all but the `keep` newest."""
        self.past = [*self.past, (level, prediction)][-keep:]


@dataclass(frozen=True)
class Step(Generic[A]):
    """All that one step is given.

    Attributes:
        x: images at `now`, (B, C, H, W).
        denoise: predicts eps from images and their level: one network call.
        now, after: this level and the next one; `after` may be the clean image.
        noise: standard normal, shaped as x; None if `noise_scale` is 0 or the caller has none.
        memory: of this trajectory; without one, the step is the first and the last.
    """

    x: A
    denoise: Callable[[A, Level], A]
    now: Level
    after: Level
    noise: A | None = None
    memory: Memory = field(default_factory=lambda: Memory(1))


class Solver(ABC):
    """One update rule. The defaults are those of a deterministic rule of one call a step."""

    @property
    def needs(self) -> Needs:
        """The rule's requirements; a class may state them as `needs = Needs(...)`."""
        return Needs()

    def calls(self, steps: int) -> int:
        """Network calls of a whole trajectory of `steps` steps."""
        return steps

    def noise_scale(self, now: Level, after: Level) -> float:
        """The standard deviation of the noise that the step from `now` to `after` adds."""
        return 0.0

    @abstractmethod
    def step(self, s: Step[A]) -> A:
        """Images at level `s.after` from images at level `s.now`.

        Raises:
            UserError: if no image remains at `s.now` (alpha 0).
        """


def solve(
    solver: Solver,
    denoise: Callable[[A, Level], A],
    x: A,
    levels: Sequence[Level],
    noise: Callable[[int], A] | None = None,
    observe: Callable[[int, Level, A], None] | None = None,
) -> A:
    """Images at the last level from images at the first.

    Args:
        solver: the update rule.
        denoise: predicts eps, shaped as x, from images and their level.
        x: images at the first level: standard normal noise if that is the noisiest level.
        levels: from noisy to clean; the last is `diptych.diffusion.schedule.CLEAN` for whole
            images. With a single level no step is taken, and x is returned.
        noise: standard normal noise of the k-th step, shaped as x; needed by solvers that add it.
        observe: called after each step with (k, the level reached, the images there).

    Raises:
        UserError: `solver` is not a solver or cannot take the levels (before the first call), or
            the prediction or the noise differs in shape from x (in the first step).
    """
    if not isinstance(solver, Solver):
        raise UserError(
            f"{type(solver).__name__} is not a solver; give one of diptych.solvers, or a class "
            f"that inherits from diptych.solvers.Solver"
        )
    check_levels(solver.needs, type(solver).__name__, levels, isinstance(denoise, Denoiser))
    in_noise = levels[0].alpha == 0.0 and isinstance(denoise, Denoiser)
    memory = Memory(len(levels) - 1 - in_noise, clean=levels[-1].sigma == 0.0)
    for k, (now, after) in enumerate(pairwise(levels)):
        needed = noise is not None and solver.noise_scale(now, after) > 0
        drawn = noise(k) if noise is not None and needed else None
        ask = denoise if k else compared(denoise)
        if k == 0 and drawn is not None:
            check_shape("the noise", drawn, x)
        s = Step(x, ask, now, after, drawn, memory)
        if in_noise and k == 0:
            x = out_of_noise(s, solver.noise_scale(now, after))
        else:
            x = solver.step(s)
            memory.left -= 1
        if observe is not None:
            observe(k, after, x)
    return x


def calls_of(solver: Solver, levels: Sequence[Level]) -> int:
    """Network calls of a whole trajectory over these levels (of a network that can start there)."""
    steps = len(levels) - 1
    if levels[0].alpha > 0.0:
        return solver.calls(steps)
    return 1 + solver.calls(steps - 1) if steps > 1 else 1


def out_of_noise(s: Step[A], scale: float) -> A:
    """Step from a level with alpha 0, where x is pure noise; add fresh noise times `scale`."""
    kept = math.sqrt(max(0.0, s.after.sigma**2 - scale**2))
    moved = s.after.alpha * image_of(s.denoise, s.x, s.now) + kept * s.x
    return with_noise(moved, scale, s)


def flow(x: A, eps: A, now: Level, after: Level) -> A:
    """The straight move along the probability flow: (alpha' / alpha) x + (...) eps.

    It is exact if eps does not change along the way. (DDIM at eta 0, equation 13.)
    """
    require_image(now)
    scale = after.alpha / now.alpha
    return scale * x + (after.sigma - scale * now.sigma) * eps


def half_log_snr(level: Level) -> float:
    """lambda = log(alpha / sigma); infinite for the clean image, minus infinite for noise."""
    if level.sigma == 0.0:
        return math.inf
    return math.log(level.alpha / level.sigma) if level.alpha > 0 else -math.inf


def with_noise(mean: A, scale: float, s: Step[A]) -> A:
    """mean + scale * noise. Raises ValueError if noise is needed and none is given."""
    if scale == 0.0:
        return mean
    if s.noise is None:
        t = s.now.t
        raise ValueError(f"the step from t={t} adds noise (scale {scale:g}), but none is given")
    return mean + scale * s.noise
