"""Noising and conversions: round trips on any array; float32 stays float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diptych.config.load import DiffusionConfig
from diptych.diffusion.objective import target
from diptych.diffusion.process import (
    add_noise,
    eps_from_v,
    eps_from_x0,
    x0_from_eps,
    x0_from_v,
)
from diptych.diffusion.schedule import CLEAN, SCHEDULES, Level, make_schedule
from diptych.types import Float64
from properties import given, st


def level_of(alpha: float) -> Level:
    return Level(0, alpha, float(np.sqrt(1 - alpha**2)))


def images(seed: int, dtype: type = np.float64) -> tuple[Float64, Float64]:
    rng = np.random.default_rng(seed)
    x0, eps = rng.standard_normal((2, 3, 1, 4, 5)).astype(dtype)
    return x0, eps


def v_of(x0: Any, eps: Any, level: Level) -> Any:
    """The velocity, as a network is trained to predict it."""
    return target("v", x0, eps, level.alpha, level.sigma)


levels = st.floats(0.01, 0.9999).map(level_of)
seeds = st.integers(0, 2**32)


@given(levels, seeds)
def test_round_trips(level: Level, seed: int) -> None:
    """From (x0, eps) to x_t and v, and back to both by every way there is."""
    x0, eps = images(seed)
    x_t, v = add_noise(x0, eps, level), v_of(x0, eps, level)
    bound = 1e-14 / min(level.alpha, level.sigma)  # a division magnifies the rounding of x_t
    for back, exact in [
        (x0_from_eps(x_t, eps, level), x0),
        (eps_from_x0(x_t, x0, level), eps),
        (x0_from_v(x_t, v, level), x0),
        (eps_from_v(x_t, v, level), eps),
    ]:
        np.testing.assert_allclose(back, exact, rtol=0, atol=10 * bound)


@given(levels, seeds)
def test_against_the_formulas_in_alpha_bar(level: Level, seed: int) -> None:
    """The papers' own notation, written independently."""
    x0, eps = images(seed)
    alpha_bar = level.alpha**2
    x_t = np.sqrt(alpha_bar) * x0 + np.sqrt(1 - alpha_bar) * eps
    np.testing.assert_allclose(add_noise(x0, eps, level), x_t, rtol=0, atol=1e-14)
    implied = x_t / np.sqrt(alpha_bar) - np.sqrt(1 / alpha_bar - 1) * eps
    np.testing.assert_allclose(x0_from_eps(x_t, eps, level), implied, rtol=1e-10, atol=1e-10)
    # v is the derivative of x_t along the angle phi with alpha = cos(phi), sigma = sin(phi).
    phi, h = np.arccos(level.alpha), 1e-6
    slope = (np.cos(phi + h) - np.cos(phi - h)) * x0 + (np.sin(phi + h) - np.sin(phi - h)) * eps
    np.testing.assert_allclose(v_of(x0, eps, level), slope / (2 * h), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_float32_stays_float32_on_every_schedule(name: Any) -> None:
    schedule = make_schedule(DiffusionConfig(schedule=name))
    x, y = images(0, np.float32)
    for level in (schedule.level(t) for t in (0, 1, 500, 998)):
        for convert in (
            add_noise,
            x0_from_eps,
            eps_from_x0,
            x0_from_v,
            eps_from_v,
        ):
            out = convert(x, y, level)
            assert out.dtype == np.float32 and out.shape == x.shape


def test_the_arguments_are_left_alone() -> None:
    x0, eps = images(1)
    kept = x0.copy(), eps.copy()
    for convert in (add_noise, x0_from_eps, eps_from_x0, x0_from_v, eps_from_v):
        convert(x0, eps, level_of(0.5))
    assert np.array_equal(x0, kept[0]) and np.array_equal(eps, kept[1])


def test_the_ends() -> None:
    """Nothing is divided by a scale that is 0."""
    x, y = images(2)
    with pytest.raises(ValueError, match="no image remains at t=7"):
        x0_from_eps(x, y, Level(7, 0.0, 1.0))
    with pytest.raises(ValueError, match="no noise remains at t=-1"):
        eps_from_x0(x, y, CLEAN)
    assert np.array_equal(add_noise(x, y, CLEAN), x)
    assert np.array_equal(x0_from_eps(x, y, CLEAN), x)
    assert np.array_equal(eps_from_x0(x, y, Level(7, 0.0, 1.0)), x)


def test_only_the_two_operators_of_every_framework_are_used() -> None:
    """array + array and float * array: what the protocol `Array` promises, and no more."""

    class Bare:
        def __init__(self, value: float) -> None:
            self.value = value

        def __add__(self, other: Bare) -> Bare:
            return Bare(self.value + other.value)

        def __rmul__(self, factor: float) -> Bare:
            assert type(factor) is float
            return Bare(factor * self.value)

    level = level_of(0.6)
    x0, eps = Bare(0.25), Bare(-1.5)
    x_t, v = add_noise(x0, eps, level), level.alpha * eps + (-level.sigma) * x0
    assert x0_from_eps(x_t, eps, level).value == pytest.approx(0.25)
    assert eps_from_x0(x_t, x0, level).value == pytest.approx(-1.5)
    assert x0_from_v(x_t, v, level).value == pytest.approx(0.25)
    assert eps_from_v(x_t, v, level).value == pytest.approx(-1.5)
