"""The solvers of a sweep: `ddim`, `dpmpp:order=3`, `dpmpp-sde:spacing=logsnr:clip`.

A variant is a solver with those of its settings that are not swept over. Each is tried at every
number of steps, or at the steps that take exactly the asked number of network calls, which is what
makes solvers comparable: Heun's method calls the network twice a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from diptych.diffusion.schedule import Schedule
from diptych.errors import UserError, nearest
from diptych.generate.for_scoring import Drawing
from diptych.sampling.sampler import SOLVERS, make_sampler
from diptych.sampling.solvers.kinds import KINDS

KEYS = ("order", "spacing", "clip", "threshold")


@dataclass(frozen=True)
class Variant:
    """A solver and its own settings; `name` is how it was written."""

    name: str
    settings: tuple[tuple[str, Any], ...]

    def drawing(self, common: Drawing, steps: int | None, eta: float | None) -> Drawing:
        """The common settings with this variant's, at so many steps."""
        return replace(common, **dict(self.settings), steps=steps, eta=eta)

    @property
    def takes_eta(self) -> bool:
        """Whether DDIM's eta is free; other solvers fix their noise."""
        return KINDS[dict(self.settings)["solver"]].noise == "eta"


def parse(text: str) -> Variant:
    """A variant from `NAME[:key=value ...]`; `clip` stands alone.

    Raises:
        UserError: an unknown solver or setting, or a value that is not of its kind.
    """
    solver, *parts = text.strip().split(":")
    if solver not in KINDS:
        raise UserError(f"--solver {text}: '{solver}' is not known{nearest(solver, list(SOLVERS))}")
    settings: dict[str, Any] = {"solver": solver}
    for part in parts:
        key, equals, value = part.partition("=")
        if key not in KEYS or (bool(equals) == (key == "clip")):
            raise UserError(
                f"--solver {text}: '{part}' is not known; use order=3, spacing=logsnr, "
                f"threshold=0.995 or clip"
            )
        kinds: dict[str, Any] = {"order": int, "threshold": float, "spacing": str}
        try:
            settings[key] = True if key == "clip" else kinds[key](value)
        except ValueError as error:
            raise UserError(f"--solver {text}: '{value}' is no value for {key}") from error
    return Variant(text.strip(), tuple(settings.items()))


def cells(
    variants: Sequence[Variant],
    common: Drawing,
    steps: Sequence[int],
    calls: Sequence[int],
    etas: Sequence[float],
    schedule: Schedule,
) -> tuple[list[tuple[Variant, Drawing]], list[str]]:
    """Every cell's variant and sampler, checked before anything is drawn, and what was left out.

    Args:
        steps, calls: solver steps or network calls; one of the two is empty.

    Returns:
        The cells, by variant, eta and steps; a line for each number of calls that a solver cannot
        have (Heun's takes odd ones only), which is left out.

    Raises:
        UserError: a sampler that cannot be, as `make_sampler`.
    """
    found, left_out = [], []
    for variant in variants:
        for eta in etas if variant.takes_eta else (None,):
            for count in steps:
                found.append((variant, variant.drawing(common, count, eta)))
            for count in calls:
                needed = _steps_for(variant, count, schedule)
                if needed is None:
                    left_out.append(f"{variant.name} cannot take exactly {count} network calls")
                else:
                    found.append((variant, variant.drawing(common, needed, eta)))
    for _, drawing in found:
        make_sampler(
            **drawing.sampler(),
            timesteps=schedule.timesteps,
            ends_in_noise=bool(schedule.alpha[-1] == 0),
        )
    return found, left_out


def _steps_for(variant: Variant, calls: int, schedule: Schedule) -> int | None:
    """The steps with which the solver calls the network so often; None where there are none."""
    settings = dict(variant.settings)
    kind = KINDS[settings["solver"]]
    order = settings.get("order") or (kind.orders or (0,))[0]
    solver = kind.make(0.0, order, schedule)
    return next((n for n in range(solver.needs.steps, calls + 1) if solver.calls(n) == calls), None)
