"""DDIM tested by its order of convergence, DDPM's posterior and the official formula."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gaussian
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import (
    CLEAN,
    SCHEDULES,
    SPACINGS,
    Level,
    make_schedule,
    make_spacing,
)
from diptych.errors import UserError
from diptych.sampling.solvers import Ddim, Solver, Step
from properties import given, settings, st
from published import official_step

STEPS = (40, 80, 160, 320)


def test_ddim_converges_at_order_one() -> None:
    """On Gaussian data the exact trajectory is known, so a wrong coefficient shows."""
    errors = [gaussian.trajectory_error(Ddim(), steps) for steps in STEPS]
    assert gaussian.orders(errors)[-1] == pytest.approx(1, abs=0.05), errors
    assert errors[-1] < 0.02


@dataclass(frozen=True)
class Mutant(Solver):
    """DDIM at eta 0 with one fault: x' = (a'/a) x + (s' - a'/a s) eps."""

    fault: str

    def step(self, s: Step[Any]) -> Any:
        x, now, after = s.x, s.now, s.after
        eps = s.denoise(x, now)
        scale, sigma = after.alpha / now.alpha, after.sigma
        if self.fault == "alpha-bar for alpha":
            scale = scale**2
        if self.fault == "sigma squared":
            sigma = sigma**2
        if self.fault == "this level's sigma":
            sigma = now.sigma
        if self.fault == "a coefficient off by one in a thousand":
            scale *= 1.001
        if self.fault == "scale forgotten":
            return scale * x + (sigma - now.sigma) * eps
        return scale * x + (sigma - scale * now.sigma) * eps


FAULTS = [
    "alpha-bar for alpha",
    "sigma squared",
    "this level's sigma",
    "a coefficient off by one in a thousand",
    "scale forgotten",
]


def test_the_mutant_without_a_fault_is_ddim() -> None:
    for steps in STEPS[:2]:
        mine, theirs = (gaussian.trajectory_error(s, steps) for s in (Mutant("none"), Ddim()))
        assert mine == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_coefficient_does_not_converge_at_order_one(fault: str) -> None:
    """The check above is evidence only if it can fail."""
    errors = [gaussian.trajectory_error(Mutant(fault), steps) for steps in STEPS]
    assert gaussian.orders(errors)[-1] < 0.9, errors


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_variance_of_the_images_converges_to_that_of_the_data(eta: float) -> None:
    """With noise too: each step is linear, so the variance at the end is known for every eta."""
    errors = []
    for steps in (400, 800, 1600):
        path = gaussian.levels(steps)
        spread = gaussian.variance(path[0])
        for now, after in pairwise(path):
            gain = Ddim(eta).step(Step(np.array([1.0]), gaussian.denoise, now, after, np.zeros(1)))
            spread = float(gain[0]) ** 2 * spread + Ddim(eta).noise_scale(now, after) ** 2
        errors.append(abs(spread / gaussian.S**2 - 1))
    assert gaussian.orders(errors)[-1] == pytest.approx(1, abs=0.1), errors


# Against the formulas, written once more

schedules = st.sampled_from([name for name in SCHEDULES if name != "jsd"])
seeds = st.integers(0, 2**32)


def drawn(seed: int) -> Any:
    """x_t, a predicted eps and noise: (3, 2, 1, 4, 4)."""
    return np.random.default_rng(seed).standard_normal((3, 2, 1, 4, 4))


def one_step(solver: Ddim, x: Any, eps: Any, now: Level, after: Level, noise: Any) -> Any:
    return solver.step(Step(x, lambda *_: eps, now, after, noise))


@given(schedules, st.integers(1, 999), seeds)
def test_eta_1_between_neighbours_is_ddpm(name: Any, t: int, seed: int) -> None:
    """Ho et al. 2020, equations 6, 7 and 11: the posterior of x_{t-1} at the implied image."""
    table = make_schedule(DiffusionConfig(schedule=name))
    bars = np.cumprod(1 - table.beta)
    beta, bar, before = table.beta[t], bars[t], bars[t - 1]
    x, eps, noise = drawn(seed)
    x0 = (x - np.sqrt(1 - bar) * eps) / np.sqrt(bar)
    mean = (
        np.sqrt(before) * beta / (1 - bar) * x0 + np.sqrt(1 - beta) * (1 - before) / (1 - bar) * x
    )
    posterior = (1 - before) / (1 - bar) * beta
    now, after = table.level(t), table.level(t - 1)
    assert Ddim(1.0).noise_scale(now, after) ** 2 == pytest.approx(posterior, rel=1e-8)
    ours = one_step(Ddim(1.0), x, eps, now, after, noise)
    np.testing.assert_allclose(ours, mean + np.sqrt(posterior) * noise, rtol=1e-8, atol=1e-9)


def test_the_last_step_of_ddpm_is_the_mean_alone() -> None:
    table = make_schedule(DiffusionConfig())
    x, eps, noise = drawn(0)
    x0 = (x - np.sqrt(table.beta[0]) * eps) / np.sqrt(1 - table.beta[0])
    assert Ddim(1.0).noise_scale(table.level(0), CLEAN) == 0
    ours = one_step(Ddim(1.0), x, eps, table.level(0), CLEAN, noise)
    np.testing.assert_allclose(ours, x0, rtol=1e-12)


@given(
    schedules,
    st.sampled_from(SPACINGS),
    st.integers(1, 1000),
    st.floats(0, 1),
    seeds,
    st.integers(0, 10**6),
)
@settings(max_examples=300)
def test_every_step_is_the_official_one(
    name: Any, spacing: str, steps: int, eta: float, seed: int, which: int
) -> None:
    table = make_schedule(DiffusionConfig(schedule=name))
    # The official code puts a level without noise before the first: alpha-bar 1 at t = -1.
    bars = np.cumprod(1 - np.concatenate([[0.0], table.beta]))
    chosen = make_spacing(spacing, steps, 1000)
    k = which % steps
    now, after = chosen[k], chosen[k - 1] if k else -1
    x, eps, noise = drawn(seed)
    expected = official_step(x, eps, bars[now + 1], bars[after + 1], eta, noise)
    ours = one_step(Ddim(eta), x, eps, table.level(now), table.level(after), noise)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(ours - expected).max() < 1e-6 * scale


def test_a_level_taken_for_its_neighbour_is_seen() -> None:
    """The comparison above has a bound; an error of one timestep is far outside it."""
    table = make_schedule(DiffusionConfig())
    bars = np.cumprod(1 - table.beta)
    x, eps, noise = drawn(1)
    ours = one_step(Ddim(0.0), x, eps, table.level(500), table.level(480), noise)
    for now, after in [(500, 480), (501, 480), (500, 481), (500, 479)]:
        apart = np.abs(ours - official_step(x, eps, bars[now], bars[after], 0.0, noise)).max()
        assert (apart < 1e-10) if (now, after) == (500, 480) else (apart > 1e-3)


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0, 1))
def test_what_a_step_adds_and_keeps_is_the_level_s_variance(a: float, b: float, eta: float) -> None:
    """s^2 + (the eps coefficient)^2 = sigma'^2: for independent eps and noise, level `after`."""
    low, high = sorted((a, b))
    now = Level(1, low, math.sqrt(1 - low**2))
    after = Level(0, high, math.sqrt(1 - high**2))
    solver, one, zero = Ddim(eta), np.ones(1), np.zeros(1)
    s = solver.noise_scale(now, after)
    # x = sigma * eps has image 0, so that only the step's noise and the eps coefficient remain.
    kept = float(one_step(solver, now.sigma * one, one, now, after, zero)[0])
    assert s**2 + kept**2 == pytest.approx(after.sigma**2, abs=1e-9)


# What crosses the seam, and what is refused


def test_float32_images_stay_float32() -> None:
    table = make_schedule(DiffusionConfig())
    x, eps, noise = drawn(0).astype(np.float32)
    for eta in (0.0, 0.7, 1.0):
        out = one_step(Ddim(eta), x, eps, table.level(999), table.level(900), noise)
        assert out.dtype == np.float32
        assert type(Ddim(eta).noise_scale(table.level(999), table.level(900))) is float


def test_the_network_is_called_once_with_this_level() -> None:
    table, asked = make_schedule(DiffusionConfig()), []

    def denoise(x: Any, level: Level) -> Any:
        asked.append(level.t)
        return x

    Ddim(0.5).step(Step(np.ones(2), denoise, table.level(10), table.level(3), np.ones(2)))
    assert asked == [10]


def test_a_level_without_an_image_is_refused() -> None:
    table = make_schedule(DiffusionConfig(schedule="jsd"))
    with pytest.raises(UserError, match="at t=999 the schedule leaves nothing of the image"):
        one_step(Ddim(), np.ones(1), np.ones(1), table.level(999), table.level(998), None)


def test_more_noise_than_the_level_holds_is_refused() -> None:
    table = make_schedule(DiffusionConfig())
    with pytest.raises(UserError, match=r"eta=3.0 asks for more noise than remains at t=400"):
        one_step(Ddim(3.0), np.ones(1), np.ones(1), table.level(500), table.level(400), np.ones(1))


def test_noise_that_is_needed_and_not_given_is_refused() -> None:
    """Else eta would be ignored in silence, and the images come out too smooth."""
    table = make_schedule(DiffusionConfig())
    with pytest.raises(ValueError, match="noise"):
        one_step(Ddim(1.0), np.ones(1), np.ones(1), table.level(500), table.level(400), None)
