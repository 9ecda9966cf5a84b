"""The sampler: checked settings that, with the weights and the seed, determine the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from diptych.config.load import Config
from diptych.diffusion.classes import choose_classes
from diptych.diffusion.schedule import CLEAN, Level, Schedule, make_schedule, starts_in_noise
from diptych.diffusion.timesteps import REPEATING, check_spacing, choose_timesteps, listed_timesteps
from diptych.errors import UserError, nearest
from diptych.rng import NOISES, Noise
from diptych.sampling.guidance import GUIDE_WEIGHT, NO_GUIDE, Interval, read_interval
from diptych.sampling.options import GUIDED, SamplerOptions, merged, without_overruled
from diptych.sampling.solvers import Denoiser, Solver, solve
from diptych.sampling.solvers.checks import check_eta, check_start
from diptych.sampling.solvers.kinds import KINDS, Kind
from diptych.sampling.solvers.multistep import Multistep
from diptych.sampling.solvers.solver import calls_of

SOLVERS = tuple(KINDS)
# Chosen by measurement: docs/scores.md. The ddpm family takes every timestep.
DEFAULT_SOLVER, DEFAULT_STEPS = "dpmpp-sde", 15
OTHER_STEPS = 50


@dataclass(frozen=True)
class Sampler:
    """All settings that determine the images, except the weights and the seed."""

    solver: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    spacing: str = "uniform"
    clip: bool | Literal["image"] = False
    order: int | None = None
    threshold: float | None = None
    classes: tuple[int, ...] | None = None
    guidance: float | None = None
    guide: str | None = None  # the model from which to guide away; None: the network without class
    guidance_interval: Interval | None = None  # the timesteps that are guided; None: all
    euler_at_final: bool | None = None  # None: where that step is long
    noise: Noise = "keyed"
    level: int | None = None  # visit only timesteps up to this one; -1: none

    def timesteps(self, schedule: Schedule) -> list[int]:
        """The chosen timesteps in sampling order, from noisy to clean."""
        most = schedule.timesteps if self.level is None else self.level
        return [t for t in choose_timesteps(self.spacing, self.steps, schedule)[::-1] if t <= most]

    def check(self, schedule: Schedule) -> None:
        """Raise UserError if the solver cannot take these levels; see `solvers.checks`."""
        check_start(self.level, self.steps, choose_timesteps(self.spacing, self.steps, schedule))
        if timesteps := self.timesteps(schedule):
            below = "" if self.level is None else f" from level t={self.level} down"
            kind = KINDS[self.solver]
            _checked_order(self.solver, kind, self.order, len(timesteps), below)
            if self.level is None and timesteps[0] == 0 < schedule.timesteps - 1:
                raise UserError(
                    f"spacing '{self.spacing}' with 1 step visits t=0 alone, where no noise is "
                    f"left to remove; use --spacing trailing, or more steps"
                )
            levels = [*map(schedule.level, timesteps), CLEAN]
            check_eta(self.eta, self.make(schedule).noise_scale, levels)

    def levels(self, schedule: Schedule) -> list[Level]:
        """The levels from noisy to the clean image.

        Raises:
            UserError: too few steps for the order; a first level of pure noise does not count.
        """
        levels = [schedule.level(t) for t in self.timesteps(schedule)] + [CLEAN]
        least = KINDS[self.solver].needs(self.order).steps + 1
        if levels[0].alpha == 0.0 and 1 < self.steps < least and least > 2:
            raise UserError(
                f"solver '{self.solver}' needs {least} steps or more where the first level is "
                f"noise alone, not {self.steps}; give more, or use ddim"
            )
        return levels

    def make(self, schedule: Schedule) -> Solver:
        """The update rule."""
        rule = KINDS[self.solver].make(self.eta, self.order or 0, schedule)
        if self.euler_at_final is None:
            return rule
        return replace(rule, euler_at_final=self.euler_at_final)  # type: ignore[type-var]

    @property
    def columns(self) -> int:
        """Columns of an image grid: 8, or one per class if there are 2 to 16."""
        return len(self.classes) if self.classes and 1 < len(self.classes) <= 16 else 8

    @property
    def guided(self) -> bool:
        """True if a network call evaluates every image twice, once to guide away from."""
        return self.guidance not in (None, 0.0, 1.0)

    @property
    def doubled(self) -> bool:
        """True if both evaluations are one call with a batch of twice the size."""
        return self.guided and self.guide is None

    def card(self, schedule: Schedule) -> dict[str, Any]:
        """All facts that determine the sampler, for manifests: equal cards give equal images."""
        self.check(schedule)
        noise, timesteps = KINDS[self.solver].noise, self.timesteps(schedule)
        rule, levels = self.make(schedule), self.levels(schedule) if timesteps else []
        calls = calls_of(rule, levels) if timesteps else 0
        euler = isinstance(rule, Multistep) and rule.ends_with_euler(levels)
        return {
            **asdict(self),
            "classes": None if self.classes is None else list(self.classes),
            "guidance_interval": self.guidance_interval and list(self.guidance_interval),
            "timesteps": timesteps,
            "euler_at_final": euler or None,  # what happens, so that equal images have equal cards
            "last_timestep": CLEAN.t,
            "sigma_type": ("posterior" if self.eta else "none") if noise == "eta" else noise,
            "network_calls": calls,
            "network_evaluations": calls + self._guided_calls(rule, levels, calls),  # per image
        }

    def _guided_calls(self, rule: Solver, levels: list[Level], calls: int) -> int:
        """The calls that evaluate every image twice."""
        interval = self.guidance_interval
        if interval is None or not calls or not self.guided:
            return calls * self.guided
        visited = []

        def denoise(x: Any, level: Level) -> Any:
            visited.append(level.t)
            return x

        still = np.zeros(1)
        solve(rule, Denoiser(denoise, denoise), still, levels, lambda _: still)
        return sum(interval[0] <= t <= interval[1] for t in visited)


def make_sampler(
    solver: str | None = None,
    steps: int | None = None,
    eta: float | None = None,
    spacing: str | None = None,
    *,
    clip: bool | Literal["image"] | None = None,
    timesteps: int = 1000,
    order: int | None = None,
    threshold: float | None = None,
    classes: Sequence[int] | str | None = None,
    guidance: float | None = None,
    guide: str | None = None,
    guidance_interval: str | Sequence[int] | None = None,
    num_classes: int = 0,
    ends_in_noise: bool = False,
    euler_at_final: bool | None = None,
    noise: str | None = None,
) -> Sampler:
    """Make a checked sampler; `diptych.sampling.solvers.kinds` lists the solvers.

    Args:
        solver: name of the solver; default `dpmpp-sde`, or `ddim` if eta is given.
        steps: solver steps; default as many as the spacing lists, else 15 for `dpmpp-sde`, all
            timesteps for the ddpm family, 50 for the others.
        eta: DDIM's noise; only for `ddim`.
        spacing: the choice of timesteps, or a list of them as text; default `uniform`, or
            `trailing` if the schedule ends in pure noise, where a trajectory must then start.
        clip: clip each implied image to [-1, 1]; default: the solver's own. "image" (only for
            `ddim`) clips the image and keeps the predicted noise, as diffusers does.
        timesteps: T of the schedule.
        order: for the solvers with a choice of order; default 2.
        threshold: dynamic thresholding at this quantile of |x0|, in place of `clip`.
        classes, guidance: see `diptych.diffusion.classes.choose_classes`; with a guide, the default
            of guidance is 1.5.
        guide: the model from which to guide away, as `diptych.load` takes it; "none" is None.
        guidance_interval: the timesteps that are guided, "100-650" or two numbers; default: all.
        num_classes: number of the network's classes.
        ends_in_noise: the schedule's last level holds nothing of the image.
        euler_at_final: order 1 in the last step between noisy levels, for the solvers that
            extrapolate in log(alpha / sigma); default: where that step is long.
        noise: "keyed" (default) or "host", see `diptych.rng`.

    Raises:
        UserError: the solver or spacing is unknown, the solver cannot use the spacing or order,
            steps is outside 1 .. T or too few for the order, eta is below 0 or the solver has
            none, the network lacks the class, or clip is off for a solver that always clips.
    """
    if solver is None:
        solver = DEFAULT_SOLVER if eta is None else "ddim"
    if solver not in KINDS:
        raise UserError(f"solver '{solver}' is not known{nearest(solver, list(SOLVERS))}")
    kind = KINDS[solver]
    usual = DEFAULT_STEPS if solver == DEFAULT_SOLVER else OTHER_STEPS
    default = timesteps if kind.all_timesteps else min(timesteps, usual)
    if spacing is None:
        spacing = "trailing" if ends_in_noise else "uniform"
    count = len(listed_timesteps(spacing) or range(default)) if steps is None else steps
    check_spacing(spacing, count, timesteps, kind.usable)
    _check_fit(solver, kind, spacing)
    chosen_order = _checked_order(solver, kind, order, count)
    if threshold is not None and not 0 < threshold <= 1:
        raise UserError(f"threshold is {threshold}; it is a quantile, above 0 and up to 1")
    if threshold is not None and (clip or kind.clips):
        raise UserError("clip and threshold both limit the predicted image; choose one")
    if clip not in (None, True, False, "image") or (clip == "image" and solver != "ddim"):
        raise UserError(f"clip is {clip!r}; expected true or false, or 'image' with solver ddim")
    if clip is False and kind.clips:
        raise UserError(f"solver '{solver}' always clips; use ddpm-large, which does not")
    clip = clip or kind.clips
    chosen_eta = _checked_eta(solver, kind, eta)
    if euler_at_final is not None and not kind.multistep:
        fit = ", ".join(name for name, other in KINDS.items() if other.multistep)
        raise UserError(f"solver '{solver}' has no euler_at_final; leave it out, or use {fit}")
    guide = None if guide == NO_GUIDE else guide
    if guide is not None and guidance is None:
        guidance = GUIDE_WEIGHT
    if guide is not None and guidance == 0:
        raise UserError("guidance is 0, which would draw from the guide alone; leave out the guide")
    given = choose_classes(classes, guidance, num_classes, guided=guide is not None)
    interval = read_interval(guidance_interval, timesteps)
    if guide is not None and given[1] == 1.0:  # it would change nothing
        guide = interval = None
        given = choose_classes(classes, None, num_classes)
    if interval is not None and given[1] in (None, 0.0, 1.0):
        raise UserError("nothing guides in the guidance interval; add a guide, or leave it out")
    if noise not in (None, *NOISES):
        raise UserError(f"noise is {noise!r}; expected {' or '.join(NOISES)}")
    drawn: Noise = "host" if noise == "host" else "keyed"
    return Sampler(
        solver,
        count,
        chosen_eta,
        spacing,
        clip,
        chosen_order,
        threshold,
        *given,
        guide,
        interval,
        euler_at_final,
        drawn,
    )


def choose_sampler(
    options: SamplerOptions,
    config: Config,
    recommended: Mapping[str, Any] | None = None,
    implied: Mapping[str, Any] | None = None,
) -> tuple[Sampler, str | None]:
    """The sampler for a model, and a line that tells the user of automatic choices, or None.

    Args:
        options: the given settings.
        config: the model's config.
        recommended: the model's own sampler, from its folder or manifest; see `merged`.
        implied: settings implied by the start of the trajectories, in place of `recommended`.

    Raises:
        UserError: as `make_sampler`; or a class is given with guidance 0, which ignores it.
    """
    if options.classes is not None and options.guidance == 0:
        raise UserError("--guidance 0 draws without a class; leave out --class, or guide by 1")
    if implied is None:
        settings, own = merged(options, recommended)
        said = _said(options, settings, own, recommended)
    else:
        settings, said = {k: v for k, v in implied.items() if v is not None}, None
        if options.classes is not None or options.guide not in (None, NO_GUIDE):
            settings.pop("guidance", None)  # implied if the network is called without a class
        settings = without_overruled(settings, options.given()) | options.given()
    sampler = make_sampler(
        **settings,
        timesteps=config.diffusion.timesteps,
        num_classes=config.model.num_classes,
        ends_in_noise=starts_in_noise(make_schedule(config.diffusion), config.diffusion.objective),
    )
    return sampler, said


def _said(
    options: SamplerOptions,
    settings: Mapping[str, Any],
    own: Mapping[str, Any],
    recommended: Mapping[str, Any] | None,
) -> str | None:
    asked = {"classes", *GUIDED} & set(options.given())
    if settings.get("guidance") == 1:  # nothing guides
        asked |= set(GUIDED)

    def words(values: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in values.items() if name not in asked)

    if own:
        expected = {"classes"} if "guide" in (recommended or {}) else {"classes", "guidance"}
        but = ", but for what was asked" if set(options.given()) - expected else ""
        kept = "spacing" in settings or "spacing" not in (recommended or {})
        without = "" if kept else "; its listed timesteps are not used, as they are not so many"
        return f"sampling as this model recommends{but}: {words(settings)}{without}"
    lost = {
        name: value
        for name, value in (recommended or {}).items()
        if name not in (*options.given(), *asked, "solver", "steps", "eta")
    }
    if not lost:
        return None
    other = "solver" if {"solver", "eta"} & set(options.given()) else "number of steps"
    return (
        f"note: this model recommends {words(recommended or {})}; another {other} is asked for, so "
        f"its {', '.join(lost)} {'is' if len(lost) == 1 else 'are'} not used"
    )


def _checked_eta(solver: str, kind: Kind, eta: float | None) -> float:
    fixed = {"eta": None, "none": 0.0}.get(kind.noise, 1.0)
    if fixed is not None and eta not in (None, fixed):
        raise UserError(
            f"solver '{solver}' has eta {fixed:g}, not {eta}; use --solver ddim with --eta {eta}"
        )
    chosen = float(eta if eta is not None else fixed or 0.0)
    if not (np.isfinite(chosen) and chosen >= 0):
        raise UserError(f"eta is {chosen}; it must be 0 or more")
    return chosen


def _checked_order(
    solver: str, kind: Kind, order: int | None, steps: int, where: str = ""
) -> int | None:
    if order is not None and order not in kind.orders:
        can = " or ".join(map(str, kind.orders)) or "no choice of order"
        raise UserError(f"solver '{solver}' has {can}, not order {order}; leave out or change it")
    chosen = order if order is not None or not kind.orders else kind.orders[0]
    least = kind.needs(chosen).steps
    if steps < least:
        of_order = f" of order {chosen}" if chosen else ""
        raise UserError(
            f"solver '{solver}'{of_order} needs {least} steps or more{where}, not {steps}; "
            f"give more, or use ddim"
        )
    return chosen


def _check_fit(solver: str, kind: Kind, spacing: str) -> None:
    if kind.spacings is not None and spacing not in kind.spacings:
        raise UserError(
            f"solver '{solver}' needs steps of equal length, which spacing '{spacing}' does not "
            f"give; use {' or '.join(kind.spacings)}"
        )
    if spacing in REPEATING and not kind.repeats:
        fit = ", ".join(name for name, other in KINDS.items() if other.repeats)
        raise UserError(
            f"spacing '{spacing}' visits timesteps twice, which solver '{solver}' cannot; "
            f"use quad, or one of {fit}"
        )
