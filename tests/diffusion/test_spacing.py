"""Timestep spacings by noise level, and the official one with its repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import SCHEDULES, SPACINGS, make_schedule, make_spacing
from diptych.diffusion.timesteps import ALL_SPACINGS, BY_LEVEL, RHO, choose_timesteps
from diptych.errors import UserError
from properties import given, st

TABLE = make_schedule(DiffusionConfig())
LOGS = np.log(TABLE.sigma / TABLE.alpha)


def test_the_spacings_by_timestep_are_unchanged() -> None:
    for name in SPACINGS:
        for steps in (1, 7, 50, 1000):
            assert choose_timesteps(name, steps, TABLE) == make_spacing(name, steps, 1000)


@given(st.sampled_from(BY_LEVEL), st.sampled_from(SCHEDULES), st.integers(2, 200), st.data())
def test_different_timesteps_from_end_to_end(
    name: str, schedule: str, timesteps: int, data: st.DataObject
) -> None:
    table = make_schedule(DiffusionConfig(schedule=schedule, timesteps=timesteps))  # type: ignore[arg-type]
    usable = int((table.alpha > 0).sum())
    steps = data.draw(st.integers(1, usable))
    chosen = choose_timesteps(name, steps, table)
    assert len(chosen) == steps == len(set(chosen)) and chosen == sorted(chosen)
    assert chosen[-1] == usable - 1 and chosen[0] >= 0
    if steps > 1:
        assert chosen[0] == 0


def test_logsnr_takes_equal_steps_of_log_snr() -> None:
    """Up to the nearest timestep: half the table's own step, which at the clean end is large."""
    chosen = choose_timesteps("logsnr", 10, TABLE)
    steps = np.diff(LOGS[chosen])
    wanted = (LOGS[-1] - LOGS[0]) / 9
    assert np.abs(steps[3:] - wanted).max() < 0.05 * wanted
    nearest = [int(np.abs(LOGS - g).argmin()) for g in np.linspace(LOGS[0], LOGS[-1], 10)]
    assert sum(a != b for a, b in zip(chosen, nearest, strict=True)) <= 1


def test_karras_takes_equal_steps_of_the_seventh_root() -> None:
    chosen = choose_timesteps("karras", 10, TABLE)
    steps = np.diff(np.exp(LOGS[chosen] / RHO))
    assert np.abs(steps / steps.mean() - 1)[2:].max() < 0.02
    formula = [
        (math.exp(LOGS[-1] / 7) + i / 9 * (math.exp(LOGS[0] / 7) - math.exp(LOGS[-1] / 7))) ** 7
        for i in range(10)
    ]
    assert chosen == [int(np.abs(LOGS - math.log(s)).argmin()) for s in reversed(formula)]


def test_official_quad_keeps_its_repeats() -> None:
    """The official code's `quad`, as its source computes it."""
    for steps in (10, 20, 50, 100, 1000):
        official = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), steps) ** 2]
        assert choose_timesteps("official-quad", steps, TABLE) == official
    hundred = choose_timesteps("official-quad", 100, TABLE)
    assert len(hundred) == 100 and len(set(hundred)) == 96 and hundred[:5] == [0, 0, 0, 0, 1]
    assert choose_timesteps("quad", 20, TABLE) == choose_timesteps("official-quad", 20, TABLE)


def test_a_schedule_that_ends_without_an_image_starts_one_level_lower() -> None:
    table = make_schedule(DiffusionConfig(schedule="jsd", timesteps=20))
    assert choose_timesteps("karras", 5, table)[-1] == 18
    with pytest.raises(UserError, match="this schedule has 19, 20 steps are asked for"):
        choose_timesteps("logsnr", 20, table)


def test_what_cannot_be_taken_is_refused() -> None:
    for name in ALL_SPACINGS:
        for steps in (0, 1001):
            with pytest.raises(UserError, match=f"{steps} steps cannot be taken"):
                choose_timesteps(name, steps, TABLE)
    with pytest.raises(UserError, match="'karas' is not known; did you mean 'karras'"):
        choose_timesteps("karas", 5, TABLE)
