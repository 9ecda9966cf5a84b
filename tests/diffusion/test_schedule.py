"""Noise schedules against independent arithmetic, and spacings that always give S timesteps."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest

from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import (
    CLEAN,
    SCHEDULES,
    SPACINGS,
    Level,
    make_betas,
    make_schedule,
    make_spacing,
)
from diptych.errors import UserError
from properties import given, settings, st

START, END = 1e-4, 0.02


def config(**changes: Any) -> DiffusionConfig:
    return DiffusionConfig(**changes)


# Schedules, once more, in 40 digits and plain loops


def mp_beta(name: str, t: int, timesteps: int) -> Any:
    """beta[t] from the papers' formulas."""
    start, end, last = mpmath.mpf(START), mpmath.mpf(END), timesteps - 1
    if name == "linear":
        return start + (end - start) * t / last
    if name == "quad":
        root = mpmath.sqrt(start) + (mpmath.sqrt(end) - mpmath.sqrt(start)) * t / last
        return root**2
    if name == "const":
        return end
    if name == "jsd":
        return mpmath.mpf(1) / (timesteps - t)
    if name == "sigmoid":
        x = -6 + mpmath.mpf(12) * t / last
        return (end - start) / (1 + mpmath.exp(-x)) + start
    assert name == "cosine"
    now, after = (
        mpmath.cos(
            (mpmath.mpf(s) / timesteps + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2
        )
        for s in (t, t + 1)
    )
    return min(1 - (after / now) ** 2, mpmath.mpf("0.999"))


@pytest.mark.parametrize("timesteps", [2, 3, 10, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_against_forty_digits(name: str, timesteps: int) -> None:
    """Measured: 9e-15; 5e-12 for cosine, whose betas are differences of nearly equal numbers."""
    schedule = make_schedule(config(schedule=name, timesteps=timesteps))
    bound = 1e-11 if name == "cosine" else 2e-14
    with mpmath.workdps(40):
        alpha_bar = mpmath.mpf(1)
        for t in range(timesteps):
            beta = mp_beta(name, t, timesteps)
            alpha_bar *= 1 - beta
            roots = (mpmath.sqrt(alpha_bar), mpmath.sqrt(1 - alpha_bar))
            tables = (schedule.beta, schedule.alpha, schedule.sigma)
            for table, exact in zip(tables, (beta, *roots), strict=True):
                assert table.dtype == np.float64 and table.shape == (timesteps,)
                assert abs(table[t] - exact) <= bound * exact


def test_the_published_constants() -> None:
    """Ho et al.: beta from 1e-4 to 0.02; L_T is small because alpha_bar ends at 4e-5."""
    schedule = make_schedule(DiffusionConfig())
    assert schedule.timesteps == 1000
    assert (schedule.beta[0], schedule.beta[-1]) == (1e-4, 0.02)
    assert schedule.alpha[-1] ** 2 == pytest.approx(4.0358e-5, rel=1e-4)
    cosine = make_schedule(config(schedule="cosine"))
    assert cosine.beta[-1] == 0.999 and cosine.alpha[499] ** 2 == pytest.approx(0.494, abs=1e-3)


betas = st.floats(1e-5, 0.05)
configs = st.builds(
    DiffusionConfig,
    schedule=st.sampled_from(SCHEDULES),
    beta_start=betas,
    beta_end=betas,
    timesteps=st.integers(2, 1500),
)


@given(configs)
def test_image_and_noise_share_the_variance_and_the_image_fades(drawn: DiffusionConfig) -> None:
    schedule = make_schedule(drawn)
    assert np.abs(schedule.alpha**2 + schedule.sigma**2 - 1).max() < 1e-12
    assert np.all(np.diff(schedule.alpha) < 0) and np.all(np.diff(schedule.sigma) >= 0)
    assert np.all(schedule.alpha >= 0) and np.all(schedule.sigma > 0)
    assert np.all((schedule.beta > 0) & (schedule.beta <= 1))


def test_only_jsd_ends_without_an_image() -> None:
    for name in SCHEDULES:
        schedule = make_schedule(config(schedule=name))
        assert (schedule.alpha[-1] == 0) == (name == "jsd")
        assert np.all(schedule.alpha[:-1] > 0) and np.isfinite(schedule.sigma).all()


@given(configs, st.data())
def test_a_level_is_plain_floats(drawn: DiffusionConfig, data: st.DataObject) -> None:
    """A NumPy float64 would turn float32 images into float64."""
    schedule = make_schedule(drawn)
    t = data.draw(st.integers(0, drawn.timesteps - 1))
    level = schedule.level(t)
    assert level == Level(t, schedule.alpha[t], schedule.sigma[t])
    assert type(level.alpha) is float and type(level.sigma) is float and type(level.t) is int


def test_levels_outside_the_table() -> None:
    schedule = make_schedule(config(timesteps=10))
    assert schedule.level(-1) == CLEAN == Level(-1, 1.0, 0.0)
    for t in (-2, 10, 1000):
        with pytest.raises(ValueError, match=f"timestep {t} is outside 0 .. 9"):
            schedule.level(t)


def test_an_unknown_schedule_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'cosin' is not known; did you mean 'cosine'"):
        make_betas("cosin", START, END, 10)


# Spacings

sizes = st.integers(1, 3000).flatmap(lambda T: st.tuples(st.integers(1, T), st.just(T)))


@given(st.sampled_from(SPACINGS), sizes)
@settings(max_examples=1000)
def test_exactly_s_different_ascending_timesteps(name: str, size: tuple[int, int]) -> None:
    steps, timesteps = size
    chosen = make_spacing(name, steps, timesteps)
    assert len(chosen) == steps and all(type(t) is int for t in chosen)
    assert chosen[0] >= 0 and chosen[-1] < timesteps
    assert all(a < b for a, b in pairwise(chosen))
    if name == "trailing":
        assert chosen[-1] == timesteps - 1
    else:
        assert chosen[0] == 0


@pytest.mark.parametrize("timesteps", [*range(1, 41), 100])
def test_every_count_of_small_schedules(timesteps: int) -> None:
    for name in SPACINGS:
        for steps in range(1, timesteps + 1):
            chosen = make_spacing(name, steps, timesteps)
            assert len(set(chosen)) == steps == len(chosen) and chosen == sorted(chosen)
            assert chosen[0] >= 0 and chosen[-1] < timesteps


def test_all_timesteps_are_all_timesteps() -> None:
    for name in SPACINGS:
        for timesteps in (1, 2, 3, 7, 1000):
            assert make_spacing(name, timesteps, timesteps) == list(range(timesteps))


@pytest.mark.parametrize("timesteps", [1, 12, 100, 1000, 1024])
def test_uniform_is_the_official_sequence_where_s_divides_t(timesteps: int) -> None:
    for steps in range(1, timesteps + 1):
        if timesteps % steps == 0:
            official = list(range(0, timesteps, timesteps // steps))
            assert make_spacing("uniform", steps, timesteps) == official


def test_uniform_does_not_overshoot_where_the_official_code_does() -> None:
    """There, 300 steps of 1000 became 334."""
    assert len(range(0, 1000, 1000 // 300)) == 334
    assert len(make_spacing("uniform", 300, 1000)) == 300


def official_quad(steps: int, timesteps: int) -> list[int]:
    return [int(s) for s in np.linspace(0, np.sqrt(timesteps * 0.8), steps) ** 2]


@given(sizes)
@settings(max_examples=500)
def test_quad_is_the_official_sequence_where_that_has_no_repeats(size: tuple[int, int]) -> None:
    official = official_quad(*size)
    chosen = make_spacing("quad", *size)
    if len(set(official)) == len(official):
        assert chosen == official
    assert all(ours >= theirs for ours, theirs in zip(chosen, official, strict=True))


def test_quad_at_the_published_counts() -> None:
    """Song et al., table 1: S = 10, 20, 50, 100. The last two visit timestep 0 more than once."""
    for steps in (10, 20):
        assert make_spacing("quad", steps, 1000) == official_quad(steps, 1000)
    assert make_spacing("quad", 10, 1000) == [0, 9, 39, 88, 158, 246, 355, 483, 632, 800]
    assert official_quad(50, 1000)[:3] == [0, 0, 1]
    assert official_quad(100, 1000)[:6] == [0, 0, 0, 0, 1, 2]
    assert make_spacing("quad", 100, 1000)[:6] == [0, 1, 2, 3, 4, 5]


@given(sizes)
def test_trailing_in_exact_arithmetic(size: tuple[int, int]) -> None:
    """Lin et al. 2024, table 2: round(T, T - T/S, ...) - 1, halves to even."""
    steps, timesteps = size
    exact = [round(Fraction(i * timesteps, steps)) - 1 for i in range(1, steps + 1)]
    assert make_spacing("trailing", steps, timesteps) == exact


def test_spacings_differ() -> None:
    chosen = [tuple(make_spacing(name, 7, 1000)) for name in SPACINGS]
    assert len(set(chosen)) == len(SPACINGS)


@pytest.mark.parametrize("steps", [0, -1, 11, 10**9])
def test_a_count_that_cannot_be_taken(steps: int) -> None:
    for name in SPACINGS:
        with pytest.raises(UserError, match=f"{steps} steps cannot .* choose 1 to 10"):
            make_spacing(name, steps, 10)


def test_an_unknown_spacing_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'quadratic' is not known; did you mean 'quad'"):
        make_spacing("quadratic", 5, 10)
