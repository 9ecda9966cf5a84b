"""Solvers by name: NFE, refusals, official semantics, limits, prediction types."""

from __future__ import annotations

import re
from dataclasses import fields
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from diptych.config.load import DiffusionConfig
from diptych.diffusion.objective import target
from diptych.diffusion.process import x0_from_eps
from diptych.diffusion.schedule import CLEAN, Level, make_schedule
from diptych.diffusion.timesteps import ALL_SPACINGS
from diptych.errors import UserError
from diptych.sampling import options
from diptych.sampling.sampler import (
    DEFAULT_SOLVER,
    DEFAULT_STEPS,
    OTHER_STEPS,
    SOLVERS,
    make_sampler,
)
from diptych.sampling.solvers import (
    Ddim,
    Ddpm,
    Deis,
    DpmSolverPP,
    DpmSolverPPSde,
    Euler,
    Step,
    dynamic_threshold,
    from_v,
    from_x0,
    limited,
    solve,
)
from diptych.sampling.solvers.kinds import KINDS
from numpy_backend import CONFIG, a_network, engine
from properties import given, st
from published import official_ddpm_step, official_step
from toy_networks import bold_eps, toy_eps

TABLE = make_schedule(DiffusionConfig())
BARS = np.cumprod(1 - TABLE.beta)


def test_the_options_name_every_solver_and_spacing() -> None:
    assert options.SOLVERS == SOLVERS and set(options.SPACINGS) == set(ALL_SPACINGS)


def test_the_help_names_every_order_and_number_of_steps() -> None:
    helps = {each.name: each.metadata["help"] for each in fields(options.SamplerOptions)}
    ordered = {name: kind.orders for name, kind in KINDS.items() if kind.orders}
    named = {name for name in KINDS if re.search(rf"\b{name}\b(?!-)", helps["order"])}
    assert named == set(ordered) and {o[0] for n, o in ordered.items() if n != "ipndm"} == {2}
    assert f"[default: 2; ipndm: {ordered['ipndm'][0]}]" in helps["order"]
    steps = f"[default: {DEFAULT_SOLVER}: {DEFAULT_STEPS}; ddpm: all; others: {OTHER_STEPS}]"
    assert steps in helps["steps"] and f"else {DEFAULT_SOLVER};" in helps["solver"]


# Network calls

CALLS = {"heun": lambda s: 2 * s - 1, "plms": lambda s: s + 1, "pndm": lambda s: s + 9}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("steps", [4, 10, 17])
def test_the_card_says_the_calls_that_happen(name: str, steps: int) -> None:
    for order in KINDS[name].orders or (None,):
        drawn, backend = engine()
        sampler = make_sampler(name, steps, order=order)
        images = drawn.draw(sampler, [0, 1])
        assert images.dtype == np.float32 and np.isfinite(images).all()
        card = sampler.card(drawn.schedule)
        assert card["network_calls"] == backend.calls == CALLS.get(name, lambda s: s)(steps)
        assert len(card["timesteps"]) == steps == backend.submitted
        assert card["order"] == order


@pytest.mark.parametrize("name", KINDS)
def test_an_image_depends_on_its_index_alone(name: str) -> None:
    sampler = make_sampler(name, 6)
    whole = engine()[0].draw(sampler, range(5), seed=3)
    assert np.array_equal(engine()[0].draw(sampler, [3, 1], seed=3), whole[[3, 1]])


@pytest.mark.parametrize("name", KINDS)
def test_float32_images_stay_float32(name: str) -> None:
    solver = make_sampler(name, 6).make(TABLE)
    levels = [TABLE.level(t) for t in (999, 800, 600, 400, 200, 0)] + [CLEAN]
    x = np.ones((2, 1, 2, 2), np.float32)
    seen: list[Any] = []

    def denoise(x: Any, level: Level) -> Any:
        seen.append(x.dtype)
        assert all(type(v) is float for v in (level.alpha, level.sigma))
        return toy_eps(x, level.t)

    out = solve(
        solver, denoise, x, levels, lambda k: np.ones_like(x), lambda *a: seen.append(a[2].dtype)
    )
    assert out.dtype == np.float32 and set(seen) == {np.dtype(np.float32)}
    assert all(type(solver.noise_scale(a, b)) is float for a, b in pairwise(levels))


def test_memory_stays_within_the_order() -> None:
    from diptych.sampling.solvers import Memory

    levels = [TABLE.level(t) for t in range(999, -1, -10)] + [CLEAN]
    for name, most in {"deis": 3, "dpmpp": 3, "ipndm": 3, "unipc": 3, "plms": 4, "pndm": 4}.items():
        order = 3 if KINDS[name].orders else None
        solver, memory = make_sampler(name, 100, order=order).make(TABLE), Memory(100)
        x: Any = np.ones((1, 1, 2, 2))
        for now, after in pairwise(levels):
            s = Step(x, lambda x, level: toy_eps(x, level.t), now, after, memory=memory)
            x = solver.step(s)
            memory.left -= 1
            assert len(memory.past) <= most


# The same rule under two names


def drawn_by(solver: Any, steps: int = 12) -> Any:
    random = np.random.default_rng(0)
    x, noises = random.standard_normal((2, 1, 3, 3)), random.standard_normal((steps, 2, 1, 3, 3))
    levels = [TABLE.level(999 - 80 * k) for k in range(steps)] + [CLEAN]
    return solve(solver, lambda x, level: toy_eps(x, level.t), x, levels, lambda k: noises[k])


def test_rules_that_are_the_same_are_the_same() -> None:
    """Euler and first-order DPM-Solver++ are DDIM; with noise they are DDPM."""
    ddim, ddpm = drawn_by(Ddim()), drawn_by(Ddim(1.0))
    for other in (Euler(), DpmSolverPP(1)):
        np.testing.assert_allclose(drawn_by(other), ddim, rtol=1e-10, atol=1e-12)
    assert np.array_equal(drawn_by(Ddpm("small")), ddpm)
    np.testing.assert_allclose(drawn_by(DpmSolverPPSde(1)), ddpm, rtol=1e-10, atol=1e-12)
    assert np.abs(drawn_by(Ddpm("large")) - ddpm).max() > 0.1


# The official code's two samplers


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 2**32))
def test_ddpm_noisy_is_the_official_ddpm_steps(a: int, b: int, seed: int) -> None:
    low, high = sorted((a, b))  # equal ones too: `official-quad` stays where it is
    x, noise = np.random.default_rng(seed).standard_normal((2, 2, 1, 3, 3))
    clipped = limited(lambda x, level: bold_eps(x, level.t), lambda x0: x0.clip(-1, 1))
    for after in (TABLE.level(low), CLEAN):
        # Before its first timestep, 0, the official table holds a level without noise.
        now = TABLE.level(high if after is not CLEAN else 0)
        bar_next = 1.0 if after is CLEAN else BARS[low]
        t = now.t if after is not CLEAN else 0
        expected = official_ddpm_step(x, bold_eps(x, now.t), t, BARS[now.t], bar_next, noise)
        if now.t == 0 and after is not CLEAN:
            continue
        ours = Ddpm("large").step(Step(x, clipped, now, after, noise))
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-8)


def test_a_whole_official_trajectory_with_repeats() -> None:
    sampler = make_sampler("ddim", 100, 0.5, "official-quad")
    drawn, backend = engine()
    ours = drawn.draw(sampler, [0], seed=1)
    from diptych.network.embedding import time_embedding
    from diptych.rng import normal_per_image

    sequence = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), 100) ** 2]
    bars = np.cumprod(1 - np.concatenate([[0.0], drawn.schedule.beta]))
    x = normal_per_image(1, "initial_noise", [0], drawn.shape, noise="keyed").astype(np.float64)
    pairs = zip(reversed(sequence), reversed([-1, *sequence[:-1]]), strict=True)
    for k, (i, j) in enumerate(pairs):
        eps = a_network(x.astype(np.float32), time_embedding([i], CONFIG.model.ch))
        noise = normal_per_image(1, "solver_noise", [0], drawn.shape, k, "keyed")
        x = official_step(x, eps, bars[i + 1], bars[j + 1], 0.5, noise)
    assert backend.calls == 100
    assert np.abs(ours - x).max() < 1e-5 * np.abs(x).max()


def test_ddpm_noisy_always_clips() -> None:
    sampler = make_sampler("ddpm-noisy", 10)
    assert sampler.clip and sampler.card(TABLE)["sigma_type"] == "large"
    assert make_sampler("ddpm-noisy").steps == make_sampler("ddpm-large").steps == 1000


# Objectives and limits


def test_a_network_of_another_objective_gives_the_same_images() -> None:
    def eps(x: Any, level: Level) -> Any:
        return toy_eps(x, level.t)

    def x0(x: Any, level: Level) -> Any:
        return x0_from_eps(x, eps(x, level), level)

    def v(x: Any, level: Level) -> Any:
        return target("v", x0(x, level), eps(x, level), level.alpha, level.sigma)

    x = np.random.default_rng(0).standard_normal((2, 1, 3, 3))
    levels = [TABLE.level(t) for t in (999, 600, 300, 100)] + [CLEAN]
    wanted = solve(DpmSolverPP(2), eps, x, levels)
    for denoise in (from_x0(x0), from_v(v)):
        np.testing.assert_allclose(solve(DpmSolverPP(2), denoise, x, levels), wanted, atol=1e-10)


def test_dynamic_thresholding_by_hand() -> None:
    x0 = np.zeros((2, 1, 1, 5), np.float32)
    x0[0, 0, 0] = [-4, -2, 0, 1, 2]  # |x0| sorted: 0 1 2 2 4; the quantile 0.75 is 2
    x0[1, 0, 0] = [-0.5, 0.2, 0.1, 0, 0.3]  # inside [-1, 1]: unchanged
    out = dynamic_threshold(x0, 0.75)
    assert out.dtype == np.float32
    assert out[0, 0, 0].tolist() == [-1, -1, 0, 0.5, 1] and np.array_equal(out[1], x0[1])


def test_thresholding_bounds_the_images() -> None:
    def bold(x: Any, embedding: Any) -> Any:
        return np.float32(-2) * x

    free = engine(bold)[0].draw(make_sampler(steps=5), range(3))
    held = engine(bold)[0].draw(make_sampler(steps=5, threshold=0.9), range(3))
    assert np.abs(free).max() > 2 and np.abs(held).max() <= 1 + 1e-6


# Refusals


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"solver": "dpmp"}, "solver 'dpmp' is not known; did you mean 'dpmpp'"),
        ({"solver": "dpmpp", "order": 4}, "solver 'dpmpp' has 2 or 3, not order 4"),
        ({"solver": "ddim", "order": 2}, "solver 'ddim' has no choice of order, not order 2"),
        ({"solver": "dpmpp", "order": 3, "steps": 2}, "'dpmpp' of order 3 needs 3 steps or more"),
        ({"solver": "unipc", "steps": 1}, "'unipc' of order 2 needs 2 steps or more, not 1"),
        ({"solver": "pndm", "steps": 3}, "solver 'pndm' needs 4 steps or more, not 3"),
        ({"solver": "plms", "steps": 1}, "solver 'plms' needs 2 steps or more, not 1"),
        ({"solver": "plms", "spacing": "quad"}, "needs steps of equal length, .*; use uniform or"),
        ({"solver": "pndm", "spacing": "karras"}, "needs steps of equal length"),
        ({"solver": "unipc", "spacing": "official-quad"}, "visits timesteps twice"),
        ({"solver": "heun", "eta": 0.5}, "solver 'heun' has eta 0, not 0.5; use --solver ddim"),
        ({"solver": "ddpm-large", "eta": 0.0}, "solver 'ddpm-large' has eta 1, not 0.0"),
        ({"threshold": 0.0}, "threshold is 0.0; it is a quantile"),
        ({"threshold": 1.5}, "threshold is 1.5; it is a quantile"),
        ({"threshold": 0.9, "clip": True}, "clip and threshold both limit"),
        ({"solver": "ddpm-noisy", "threshold": 0.9}, "clip and threshold both limit"),
    ],
)
def test_what_a_solver_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_sampler(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", [[], [CLEAN]])
def test_euler_at_final_lowers_one_step(end: list[Level]) -> None:
    """The last between two noisy levels, whether or not the clean image follows."""
    levels = [*map(TABLE.level, (900, 700, 500, 300, 100)), *end]

    def steps(euler: bool) -> list[Any]:
        found: list[Any] = []
        solver = Deis(2, lower_order_final=False, euler_at_final=euler)
        x, denoise = np.linspace(-2, 2, 4).reshape(1, 1, 2, 2), lambda x, at: toy_eps(x, at.t)
        solve(solver, denoise, x, levels, observe=lambda k, level, x: found.append(x))
        return found

    pairs = zip(steps(False), steps(True), strict=True)
    assert [np.array_equal(*pair) for pair in pairs][:4] == [True, True, True, False]


@pytest.mark.parametrize("name", KINDS)
def test_a_level_without_an_image_is_refused(name: str) -> None:
    table = make_schedule(DiffusionConfig(schedule="jsd"))
    solver = make_sampler(name, 10).make(table)
    with pytest.raises(UserError, match="at t=999 the schedule leaves nothing of the image"):
        one, now, after = np.ones(1), table.level(999), table.level(500)
        solver.step(Step(one, lambda x, level: x, now, after, one))


@pytest.mark.parametrize("solver", [Ddpm("small"), Ddpm("large"), DpmSolverPPSde()])
def test_noise_that_is_needed_and_not_given_is_refused(solver: Any) -> None:
    levels = [TABLE.level(999), TABLE.level(500), CLEAN]
    with pytest.raises(ValueError, match="adds noise"):
        solve(solver, lambda x, level: toy_eps(x, level.t), np.ones((1, 1, 2, 2)), levels)
