"""The solvers of a sweep: `ddim`, `dpmpp:order=3`, `dpmpp-sde:spacing=logsnr:clip`.

A variant is a solver with its settings that are not swept over. Each runs at every number of steps,
or at the steps that take exactly the requested number of network calls. Equal calls make solvers
comparable: Heun's method calls the network twice per step.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from diptych.config.load import Config
from diptych.diffusion.classes import parse_classes
from diptych.diffusion.schedule import CLEAN, Schedule, make_schedule, starts_in_noise
from diptych.diffusion.timesteps import choose_timesteps
from diptych.errors import UserError, nearest
from diptych.generate.for_scoring import Drawing
from diptych.sampling.options import FIELDS, NAMES, SamplerOptions, option_name
from diptych.sampling.sampler import SOLVERS, choose_sampler, make_sampler
from diptych.sampling.solvers.kinds import KINDS
from diptych.sampling.solvers.solver import calls_of

SWEPT = ("solver", "steps", "eta")
# Option -> field, for settings that are not swept over.
KEYS = {option_name(name): name for name in NAMES if name not in SWEPT}


@dataclass(frozen=True)
class Variant:
    """A solver and its own settings; `name` is the text it was parsed from."""

    name: str
    settings: tuple[tuple[str, Any], ...]

    def drawing(self, common: Drawing, steps: int | None, eta: float | None) -> Drawing:
        """The common settings with this variant's own, at the given steps and eta."""
        own = dict(self.settings)
        return replace(common, options=replace(common.options, **own, steps=steps, eta=eta))

    @property
    def takes_eta(self) -> bool:
        """True if the solver has DDIM's eta; other solvers fix their noise."""
        return KINDS[dict(self.settings)["solver"]].noise == "eta"


def parse(text: str) -> Variant:
    """Parse a variant from `NAME[:key=value ...]`; a flag such as `clip` has no value.

    Raises:
        UserError: an unknown solver or setting, or a value of the wrong type.
    """
    solver, *parts = re.split(r"(?<!=zoo)(?<!=pretrained):", text.strip())
    if solver not in KINDS:
        raise UserError(f"--solver {text}: '{solver}' is not known{nearest(solver, list(SOLVERS))}")
    settings: dict[str, Any] = {"solver": solver}
    for part in parts:
        key, equals, value = part.partition("=")
        kind = FIELDS[KEYS[key]].metadata["kind"] if key in KEYS else None
        if kind is None or bool(equals) == (kind is bool):
            raise UserError(
                f"--solver {text}: '{part}' is not known; use order=3, spacing=logsnr, "
                f"threshold=0.995, class=7, guidance=2 or clip"
            )
        try:
            settings[KEYS[key]] = True if kind is bool else kind(value)
        except ValueError as error:
            raise UserError(f"--solver {text}: '{value}' is not a value for {key}") from error
    if "classes" in settings:
        settings["classes"] = parse_classes(settings["classes"])
    return Variant(text.strip(), tuple(settings.items()))


def cells(
    variants: Sequence[Variant],
    common: Drawing,
    steps: Sequence[int],
    calls: Sequence[int],
    etas: Sequence[float],
    config: Config,
) -> tuple[list[tuple[Variant, Drawing]], list[str]]:
    """Each cell's variant and sampler, checked before anything is drawn, and the omissions.

    Args:
        steps, calls: solver steps or network calls; one of the two is empty.

    Returns:
        The cells, by variant, eta and steps; a line for each omitted number of calls, which the
        solver cannot make (Heun's method only takes odd numbers).

    Raises:
        UserError: an invalid sampler, as in `choose_sampler`, or one that cannot take the levels of
            this model's schedule.
    """
    schedule = make_schedule(config.diffusion)
    found, left_out = [], []
    for variant in variants:
        for eta in etas if variant.takes_eta else (None,):
            for count in steps:
                found.append((variant, variant.drawing(common, count, eta)))
            options = variant.drawing(common, None, eta).options
            ends = starts_in_noise(schedule, config.diffusion.objective)
            options = replace(options, spacing=options.spacing or default_spacing(ends))
            for count in calls:
                needed = steps_for(options, count, schedule)
                if needed is None:
                    left_out.append(f"{variant.name} cannot take exactly {count} network calls")
                else:
                    found.append((variant, variant.drawing(common, needed, eta)))
    for _, drawing in found:
        sampler, _ = choose_sampler(drawing.options, config)
        sampler.card(schedule)
    return found, left_out


def steps_for(options: SamplerOptions, calls: int, schedule: Schedule) -> int | None:
    """The steps at which the solver makes exactly this many network calls, or None.

    A first step from a level without an image (zero terminal SNR) takes one call, whatever the
    solver; `options.spacing` says if that level is visited (None: uniform).
    """
    kind = KINDS[str(options.solver)]
    solver = kind.make(0.0, options.order or (kind.orders or (0,))[0], schedule)
    spacing = options.spacing or default_spacing(False)

    def made(steps: int) -> int | None:
        if schedule.alpha[-1] > 0:
            return solver.calls(steps)
        try:
            chosen = choose_timesteps(spacing, steps, schedule)[::-1]
        except UserError:  # not with this many steps
            return None
        return calls_of(solver, [*map(schedule.level, chosen), CLEAN])

    return next((n for n in range(solver.needs.steps, calls + 1) if made(n) == calls), None)


def default_spacing(ends_in_noise: bool) -> str:
    """The spacing that `make_sampler` takes if none is asked for."""
    return make_sampler("ddim", ends_in_noise=ends_in_noise).spacing
