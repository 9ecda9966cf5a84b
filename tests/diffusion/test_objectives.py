"""Prediction types, timestep weights, and schedules that end in pure noise."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diptych.align.ladder.rungs.training import told
from diptych.config.load import DiffusionConfig, load_config
from diptych.diffusion.objective import min_snr_weights, target
from diptych.diffusion.process import eps_from_v, eps_from_x0, x0_from_v
from diptych.diffusion.schedule import CLEAN, SCHEDULES, Level, make_schedule
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.sampling.sampler import make_sampler
from diptych.sampling.solvers import (
    Ddim,
    Step,
    dynamic_threshold,
    from_v,
    from_x0,
    invert,
    limited,
    solve,
)
from diptych.sampling.solvers.kinds import KINDS
from diptych.sampling.solvers.solver import calls_of
from diptych.training.batches import Batches
from properties import given, st

S = 0.5  # of Gaussian data, on which the best prediction is known


def ending_in_noise(**changes: Any) -> DiffusionConfig:
    return DiffusionConfig(objective="v", zero_terminal_snr=True, **changes)


ZERO = make_schedule(ending_in_noise())


def best_v(x: Any, level: Level) -> Any:
    """E[v | x] for images of N(0, S^2)."""
    variance = level.alpha**2 * S**2 + level.sigma**2
    return (level.alpha * level.sigma * (1 - S**2) / variance) * x


# Targets


@given(st.floats(0.01, 0.99), st.sampled_from(["eps", "x0", "v"]))
def test_a_perfect_network_of_any_objective_gives_the_noise(alpha: float, name: str) -> None:
    """`target` and the wrappers are inverse to each other."""
    level = Level(5, alpha, math.sqrt(1 - alpha**2))
    x0, eps = np.random.default_rng(0).standard_normal((2, 2, 1, 3, 3))
    x = alpha * x0 + level.sigma * eps
    wanted = target(name, x0, eps, np.array(alpha), np.array(level.sigma))
    read = {
        "eps": lambda out: out,
        "x0": lambda out: eps_from_x0(x, out, level),
        "v": lambda out: eps_from_v(x, out, level),
    }[name]
    np.testing.assert_allclose(read(wanted), eps, atol=1e-9)
    if name == "v":
        np.testing.assert_allclose(wanted, alpha * eps - level.sigma * x0, atol=1e-12)
        np.testing.assert_allclose(x0_from_v(x, wanted, level), x0, atol=1e-12)


# Weights


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("gamma", [0.5, 5.0, 20.0])
def test_min_snr_weights_are_the_papers(schedule: Any, gamma: float) -> None:
    table = make_schedule(DiffusionConfig(schedule=schedule))
    found = {name: min_snr_weights(name, table, gamma) for name in ("eps", "x0", "v")}
    for t in range(0, 1000, 37):
        snr = (table.alpha[t] / table.sigma[t]) ** 2
        expected = {"x0": min(snr, gamma), "eps": min(snr, gamma) / snr if snr else 1}
        expected["v"] = min(snr, gamma) / (snr + 1)
        for name, weight in expected.items():
            assert found[name][t] == pytest.approx(weight, rel=1e-12), (name, t)
    assert found["eps"][-1] == 1 and np.isfinite(found["v"]).all()


def test_the_three_weights_are_one_weight_of_the_images_error() -> None:
    """An error d of the image is an error alpha / sigma d of the noise, d / sigma of v."""
    table = make_schedule(DiffusionConfig())
    x0, eps, v = (min_snr_weights(name, table, 5.0) for name in ("x0", "eps", "v"))
    np.testing.assert_allclose(eps * (table.alpha / table.sigma) ** 2, x0, rtol=1e-9)
    np.testing.assert_allclose(v / table.sigma**2, x0, rtol=1e-9)


def test_a_batch_has_its_images_weights() -> None:
    images = np.zeros((30, 1, 14, 14), np.uint8)
    config = load_config("tiny", ["train.weighting=min-snr", "train.min_snr_gamma=3"])
    batch = Batches(config, make_plan(config), images).batch(2)
    table = min_snr_weights("eps", make_schedule(config.diffusion), 3.0)
    assert batch.weight is not None and batch.weight.dtype == np.float32
    assert np.array_equal(batch.weight.ravel(), table[batch.t].astype(np.float32))


# Zero terminal SNR


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n != "jsd"])
def test_the_rescaled_schedule_ends_in_noise_and_begins_as_before(name: Any) -> None:
    plain = make_schedule(DiffusionConfig(schedule=name))
    table = make_schedule(ending_in_noise(schedule=name))
    assert table.alpha[-1] == 0 and table.sigma[-1] == 1 and table.beta[-1] == 1
    assert table.alpha[0] == pytest.approx(plain.alpha[0], rel=1e-14)
    assert table.sigma[0] == pytest.approx(plain.sigma[0], rel=1e-9)
    np.testing.assert_allclose(table.alpha**2 + table.sigma**2, 1, rtol=1e-15)
    assert np.all(np.diff(table.alpha) < 0) and np.all((table.beta > 0) & (table.beta <= 1))
    np.testing.assert_allclose(np.sqrt(np.cumprod(1 - table.beta)), table.alpha, atol=1e-12)


def test_the_rescaling_is_algorithm_1() -> None:
    """Line by line, from betas to betas."""
    bars = np.sqrt(np.cumprod(1 - make_schedule(DiffusionConfig()).beta))
    first, last = bars[0], bars[-1]
    bars = bars - last
    bars = bars * (first / (first - last))
    bars = bars**2
    alphas = np.concatenate([bars[:1], bars[1:] / bars[:-1]])
    np.testing.assert_allclose(ZERO.beta, 1 - alphas, atol=1e-14)


def test_a_schedule_that_ends_in_noise_already_stays_as_it_is() -> None:
    plain = make_schedule(DiffusionConfig(schedule="jsd"))
    again = make_schedule(ending_in_noise(schedule="jsd"))
    np.testing.assert_allclose(again.alpha, plain.alpha, atol=1e-14)


@pytest.mark.parametrize("changes, message", [
    (["diffusion.zero_terminal_snr=true"], "use diffusion.objective v or x0"),
    (["diffusion.zero_terminal_snr=true", "diffusion.objective=v", "train.weighting=min-snr"],
     "train.weighting min-snr gives the last timestep of zero_terminal_snr no weight"),
    (["diffusion.schedule=jsd", "diffusion.objective=v", "train.weighting=min-snr"],
     "train.weighting min-snr gives the last timestep of schedule jsd no weight"),
    (["diffusion.schedule=jsd", "diffusion.objective=x0", "train.weighting=min-snr"],
     "set train.weighting to none"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(changes: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_config("tiny", changes)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", SCHEDULES)
def test_min_snr_goes_with_eps_and_in_the_ladder_with_every_schedule(name: Any) -> None:
    chosen = [f"diffusion.schedule={name}"]
    config = load_config("tiny", [*chosen, "train.weighting=min-snr"])
    assert config.diffusion.ends_in_noise == (make_schedule(config.diffusion).alpha[-1] == 0)
    changes = told(SimpleNamespace(config=config))  # type: ignore[arg-type]
    words = [f"{key.replace('__', '.')}={value}" for key, value in changes.items()]
    weighted = load_config("tiny", [*chosen, *words]).train.weighting
    assert weighted == ("none" if name == "jsd" else "min-snr")


# Sampling from a level without an image


def drawn(name: str, steps: int, denoise: Any, order: int | None = None) -> Any:
    sampler = make_sampler(name, steps, spacing="trailing", order=order)
    noises = np.random.default_rng(1).standard_normal((steps, 4000))
    x = np.random.default_rng(0).standard_normal(4000)
    levels = sampler.levels(ZERO)
    assert levels[0].alpha == 0 and levels[-1] is CLEAN
    return x, solve(sampler.make(ZERO), denoise, x, levels, lambda k: noises[k])


@pytest.mark.parametrize("name", KINDS)
def test_every_solver_starts_where_nothing_of_the_image_is_left(name: str) -> None:
    """On Gaussian data: without noise x ends at S x_T, with noise at the variance S^2."""
    for order in KINDS[name].orders or (None,):
        x, out = drawn(name, 250, from_v(best_v), order)
        within = 0.12 if "large" in name or "noisy" in name else 0.05
        assert out.std() == pytest.approx(S, rel=within)
        if KINDS[name].noise in ("none", "eta"):
            np.testing.assert_allclose(out, S * x, rtol=0.03)


@pytest.mark.parametrize("name", KINDS)
def test_the_calls_are_those_of_the_card(name: str) -> None:
    asked: list[Level] = []

    def v(x: Any, level: Level) -> Any:
        asked.append(level)
        return best_v(x, level)

    for order in KINDS[name].orders or (None,):
        asked.clear()
        sampler = make_sampler(name, 8, spacing="trailing", order=order)
        drawn(name, 8, from_v(v), order)
        assert len(asked) == sampler.card(ZERO)["network_calls"]
        assert len(asked) == calls_of(sampler.make(ZERO), sampler.levels(ZERO))


def test_one_step_from_noise_is_the_predicted_image() -> None:
    for name in ("ddim", "heun", "euler", "ddpm"):
        sampler = make_sampler(name, 1, spacing="trailing")
        x, out = drawn(name, 1, from_x0(lambda x, level: 3 * x))
        assert np.array_equal(out, 3 * x) and sampler.card(ZERO)["network_calls"] == 1


def test_the_first_step_is_ddims_limit() -> None:
    """As from a level with very little of the image left."""
    x = np.random.default_rng(0).standard_normal(50)
    after, image = ZERO.level(700), from_v(best_v)
    nearly = Level(999, 1e-9, math.sqrt(1 - 1e-18))
    for eta in (0.0, 0.6, 1.0):
        noise = np.random.default_rng(2).standard_normal(50)
        levels = [ZERO.level(999), after]
        ours = solve(Ddim(eta), image, x, levels, lambda k: noise)  # noqa: B023
        # The same image, read as noise by a network that can say so there.
        eps = (x - nearly.alpha * image.image(x, ZERO.level(999))) / nearly.sigma
        theirs = Ddim(eta).step(Step(x, lambda x, level: eps, nearly, after, noise))  # noqa: B023
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_limits_hold_there_too() -> None:
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8))
    for limit in (lambda x0: x0.clip(-1, 1), lambda x0: dynamic_threshold(x0, 0.9)):
        denoise = limited(from_x0(lambda x, level: 3 * x), limit)
        out = solve(Ddim(), denoise, x, [ZERO.level(999), CLEAN])
        assert np.abs(out).max() <= 1 + 1e-12


@pytest.mark.parametrize("name", KINDS)
def test_a_network_that_predicts_noise_cannot_start_there(name: str) -> None:
    sampler = make_sampler(name, 8, spacing="trailing")
    x = np.ones((1, 1, 2, 2))
    for denoise in (lambda x, level: x, limited(lambda x, level: x, lambda x0: x0)):
        with pytest.raises(UserError, match="leaves nothing of the image"):
            solve(sampler.make(ZERO), denoise, x, sampler.levels(ZERO), lambda k: x)


def test_a_multistep_solver_needs_its_steps_after_the_first() -> None:
    for name, least in (("pndm", 5), ("plms", 3)):
        assert make_sampler(name, least, spacing="trailing").levels(ZERO)
        with pytest.raises(UserError, match=f"needs {least} steps or more where the first level"):
            make_sampler(name, least - 1, spacing="trailing").card(ZERO)


def test_a_network_that_predicts_the_image_or_v_takes_the_same_path() -> None:
    """All three objectives give one trajectory while something of the image is left."""
    table = make_schedule(DiffusionConfig())
    levels = [table.level(t) for t in (900, 500, 200)] + [CLEAN]
    x = np.random.default_rng(0).standard_normal(20)
    by_v = solve(Ddim(), from_v(best_v), x, levels)
    image = from_x0(lambda x, level: x0_from_v(x, best_v(x, level), level))
    by_x0 = solve(Ddim(), image, x, levels)
    by_eps = solve(Ddim(), lambda x, level: eps_from_v(x, best_v(x, level), level), x, levels)
    np.testing.assert_allclose(by_v, by_x0, atol=1e-12)
    np.testing.assert_allclose(by_v, by_eps, atol=1e-12)
    assert all(a.alpha < b.alpha for a, b in pairwise(levels))


# Inversion into a level without an image


def at_mean(x: Any, level: Level) -> Any:
    """E[v | x] for images of N(0.3, S^2)."""
    off = x - level.alpha * 0.3
    return best_v(off, level) - level.sigma * 0.3


def telling(x: Any, level: Level) -> Any:
    """An image that depends on the noise also where nothing of it is left."""
    return 0.3 + (0.2 + 0.6 * level.alpha) * x


@pytest.mark.parametrize("denoise", [from_v(at_mean), from_x0(telling)])
@pytest.mark.parametrize("steps", [3, 5, 20])
def test_an_image_comes_back_from_noise_alone(denoise: Any, steps: int) -> None:
    """The round trip's error falls with refinement to rounding; the image is predicted from x*."""
    image = 0.3 + S * np.random.default_rng(0).standard_normal((3, 1, 4, 4))
    down = make_sampler("ddim", steps, spacing="trailing").levels(ZERO)
    assert down[0].alpha == 0

    def error(refine: int) -> float:
        noise = invert(denoise, image, down[::-1], refine)
        return float(np.abs(solve(Ddim(), denoise, noise, down) - image).max())

    found = [error(refine) for refine in (0, 1, 4, 200)]
    assert found == sorted(found, reverse=True) and found[-1] < 1e-9 < found[0]


def test_noise_alone_is_not_reached_without_a_word_about_the_image() -> None:
    """In one line, and before the first call."""
    asked: list[Level] = []

    def eps(x: Any, level: Level) -> Any:
        asked.append(level)
        return x

    up = make_sampler("ddim", 5, spacing="trailing").levels(ZERO)[::-1]
    with pytest.raises(UserError, match="at t=999 the schedule leaves nothing of the image"):
        invert(eps, np.ones((1, 1, 2, 2)), up)
    assert not asked
    with pytest.raises(UserError, match="any noise leads to that image; give 2 steps or more"):
        invert(from_v(eps), np.ones((1, 1, 2, 2)), [CLEAN, ZERO.level(999)])
    assert not asked
