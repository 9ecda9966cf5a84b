"""The sampling loop on NumPy arrays: image i is keyed, and the noise has the right variance."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import gaussian
from diptych.diffusion.schedule import CLEAN, Level, make_schedule
from diptych.errors import UserError
from diptych.figures.movie import Strip
from diptych.generate.trajectory import Pictures, Watch
from diptych.network.embedding import time_embedding
from diptych.rng import normal_per_image
from diptych.sampling.inversion import encode, make_inversion
from diptych.sampling.sampler import Sampler, make_sampler
from diptych.sampling.solvers import Ddim, Step
from diptych.types import Float32
from numpy_backend import CONFIG, a_network, engine


@pytest.mark.parametrize(
    "sampler", [Sampler(steps=7), Sampler(steps=7, eta=0.8), Sampler("ddpm", 9, 1)]
)
@pytest.mark.parametrize("clip", [False, True])
def test_an_image_depends_on_its_index_alone(sampler: Sampler, clip: bool) -> None:
    sampler = make_sampler(sampler.solver, sampler.steps, sampler.eta, clip=clip)
    whole = engine()[0].draw(sampler, range(6), seed=3)
    assert whole.dtype == np.float32 and whole.shape == (6, 1, 14, 14)
    for images in ([4], [5, 0, 4], [2, 3]):
        assert np.array_equal(engine()[0].draw(sampler, images, seed=3), whole[images])
    other = engine()[0].draw(sampler, range(6), seed=4)
    assert all(not np.array_equal(a, b) for a in whole for b in other)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name, eta", [("ddim", 0.0), ("ddim", 0.7), ("ddpm", 1.0)])
def test_ddim_and_ddpm_give_the_bits_of_the_first_release(
    name: str, eta: float, clip: bool
) -> None:
    """The loop as it was before there were other solvers, operation by operation."""
    drawn, _ = engine()
    sampler = make_sampler(name, 9, eta, clip=clip, noise="host")
    table, shape = drawn.schedule, drawn.shape
    path = [table.level(t) for t in sampler.timesteps(table)] + [CLEAN]
    x = normal_per_image(5, "initial_noise", [0, 1], shape)
    for k, (now, after) in enumerate(pairwise(path)):
        ratio = now.alpha / after.alpha
        s = eta * after.sigma / now.sigma * math.sqrt(max(0.0, 1.0 - ratio * ratio))
        eps = a_network(x, time_embedding([now.t], CONFIG.model.ch))
        if clip:
            x0 = ((1.0 / now.alpha) * x + (-now.sigma / now.alpha) * eps).clip(-1, 1)
            eps = (1.0 / now.sigma) * x + (-now.alpha / now.sigma) * x0
        scale = after.alpha / now.alpha
        kept = math.sqrt(max(0.0, after.sigma**2 - s**2))
        x = scale * x + (kept - scale * now.sigma) * eps
        if s > 0:
            x = x + s * normal_per_image(5, "solver_noise", [0, 1], shape, k)
    assert np.array_equal(drawn.draw(sampler, [0, 1], seed=5), x)


def test_the_first_noise_can_be_given() -> None:
    drawn = engine()[0]
    x = np.random.default_rng(0).standard_normal((2, 1, 14, 14)).astype(np.float32)
    kept, sampler = x.copy(), make_sampler("ddim", steps=5)
    one = drawn.draw(sampler, [0, 1], x_T=x)
    assert np.array_equal(one, drawn.draw(sampler, [7, 9], seed=5, x_T=x)), (
        "no other noise at eta 0"
    )
    assert np.array_equal(x, kept)


def test_the_loop_walks_the_levels_it_names() -> None:
    drawn, backend = engine()
    sampler, seen = make_sampler(steps=5, spacing="trailing"), list[tuple[int, int]]()
    drawn.draw(sampler, [0], observe=lambda k, level, x: seen.append((k, level.t)))
    card = sampler.card(drawn.schedule)
    assert card["timesteps"] == [999, 799, 599, 399, 199]
    assert seen == [(0, 799), (1, 599), (2, 399), (3, 199), (4, CLEAN.t)]
    assert backend.calls == backend.submitted == card["network_calls"] == 5


def test_the_network_is_told_this_timestep() -> None:
    asked: list[int] = []
    table = time_embedding(np.arange(1000), CONFIG.model.ch)

    def network(x: Float32, embedding: Float32) -> Float32:
        asked.append(int(np.abs(table - embedding).sum(axis=1).argmin()))
        return x

    drawn, _ = engine(network)
    sampler = make_sampler(steps=4)
    drawn.draw(sampler, [0])
    assert asked == sampler.timesteps(drawn.schedule) == [750, 500, 250, 0]


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_on_gaussian_data_the_images_have_the_variance_that_the_steps_imply(eta: float) -> None:
    """Noise reused from one step to the next, or wrongly scaled, would show in the variance."""
    sampler = make_sampler("ddim", 20, eta)
    schedule = make_schedule(CONFIG.diffusion)
    levels = [schedule.level(t) for t in sampler.timesteps(schedule)]
    asked = iter(levels)
    drawn, _ = engine(lambda x, _: gaussian.denoise(x, next(asked)))
    images = drawn.draw(sampler, range(200))
    spread = 1.0
    for now, after in pairwise([*levels, CLEAN]):
        gain = Ddim(eta).step(Step(np.ones(1), gaussian.denoise, now, after, np.zeros(1)))
        spread = float(gain[0]) ** 2 * spread + Ddim(eta).noise_scale(now, after) ** 2
    assert abs(images.var() / spread - 1) < 4 * (2 / images.size) ** 0.5
    assert abs(images.mean()) < 4 * (spread / images.size) ** 0.5


def test_clipping_bounds_the_image_and_changes_nothing_else() -> None:
    def bold(x: Float32, embedding: Float32) -> Float32:
        return np.float32(-2) * x

    free, clipped = (
        engine(bold)[0].draw(make_sampler(steps=5, clip=clip), range(3)) for clip in (False, True)
    )
    assert np.abs(free).max() > 2 and np.abs(clipped).max() <= 1 + 1e-6
    level = Level(5, 0.8, 0.6)
    x = np.random.default_rng(0).standard_normal((1, 1, 14, 14)).astype(np.float32)
    mild = engine(lambda x, _: x)[0]  # implies 0.5 x, mostly inside [-1, 1]
    inside = np.abs(0.5 * x) < 1
    clipped_eps = mild.denoiser(make_sampler(clip=True), [0])(x, level)
    np.testing.assert_allclose(clipped_eps[inside], x[inside], rtol=1e-5, atol=1e-6)


def test_an_image_that_is_not_finite_is_refused_by_its_number() -> None:
    def broken(x: Float32, embedding: Float32) -> Float32:
        return np.where(np.arange(len(x))[:, None, None, None] == 1, np.float32(np.nan), x)

    with pytest.raises(UserError, match=r"1 of 3 images are not finite \(the first is number 7\)"):
        engine(broken)[0].draw(make_sampler("ddim", 3), [5, 7, 9])
    with pytest.raises(UserError, match="not finite"):
        encode(engine(broken)[0], make_inversion(3), np.zeros((2, 1, 14, 14), np.float32))


@pytest.mark.parametrize("name", ["dpmpp-sde", "heun", "pndm"])
def test_the_host_reads_nothing_before_the_last_step(name: str) -> None:
    """On a GPU a read would wait for the device in the middle of the loop."""
    drawn, backend = engine()
    sampler = make_sampler(name, 12)
    reads: list[int] = []
    backend.numpy = lambda values: (reads.append(backend.calls), values)[1]  # type: ignore[method-assign, func-returns-value]
    x = np.zeros((9, *drawn.shape), np.float32)
    watch = Watch(drawn, sampler, Pictures(strip=Strip("both")), x, None)
    drawn.draw(sampler, range(9), observe=watch.observe, predicted=watch.predicted)
    assert set(reads) == {sampler.card(drawn.schedule)["network_calls"]}


@pytest.mark.parametrize("name", ["ddim", "heun", "pndm", "plms"])
def test_the_predicted_image_belongs_to_the_images_before_the_step(name: str) -> None:
    drawn, _ = engine()
    sampler, seen, images = make_sampler(name, 6), list[Float32](), list[Float32]()
    drawn.draw(
        sampler, [0], seed=1, observe=lambda k, level, x: images.append(x),
        predicted=lambda k, level, x0: seen.append(x0),
    )  # fmt: skip
    before = [normal_per_image(1, "initial_noise", [0], drawn.shape, noise="keyed"), *images[:-1]]
    levels = [drawn.schedule.level(t) for t in sampler.timesteps(drawn.schedule)]
    for x, x0, level in zip(before, seen, levels, strict=True):
        eps = a_network(x, time_embedding([level.t], CONFIG.model.ch))
        np.testing.assert_allclose(x0, (x - level.sigma * eps) / level.alpha, rtol=1e-4, atol=1e-4)


# Settings


def test_a_schedule_that_ends_in_noise_is_sampled_from_its_end() -> None:
    assert make_sampler(ends_in_noise=True).spacing == "trailing"
    assert make_sampler(spacing="uniform", ends_in_noise=True).spacing == "uniform"
    assert make_inversion(ends_in_noise=True).sampler.spacing == "trailing"


def test_one_step_at_the_clean_end_is_refused() -> None:
    schedule = make_schedule(CONFIG.diffusion)
    with pytest.raises(UserError, match="visits t=0 alone"):
        make_sampler("ddim", 1).check(schedule)
    make_sampler("ddim", 1, spacing="trailing").check(schedule)


def test_a_solver_that_always_clips_says_so() -> None:
    with pytest.raises(UserError, match="'ddpm-noisy' always clips"):
        make_sampler("ddpm-noisy", clip=False)
    assert make_sampler("ddpm-noisy").clip and not make_sampler("ddpm-large", clip=False).clip


def test_defaults() -> None:
    assert make_sampler() == Sampler("dpmpp-sde", 15, 1.0, "uniform", False)
    assert make_sampler("ddim") == Sampler("ddim", 50, 0.0, "uniform", False)
    assert make_sampler(eta=0.5) == make_sampler("ddim", eta=0.5)
    assert make_sampler("ddpm") == Sampler("ddpm", 1000, 1.0, "uniform", False)
    assert make_sampler("ddpm", timesteps=200).steps == 200
    assert make_sampler("ddim", timesteps=20).steps == 20
    assert make_sampler("ddpm", 10, 1.0).eta == 1.0


def test_ddpm_visits_every_timestep_of_a_long_schedule_too() -> None:
    assert make_sampler("ddpm", timesteps=4000).steps == 4000


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"solver": "dpm"}, "solver 'dpm' is not known; did you mean 'ddpm'"),
        ({"solver": "ddpm", "eta": 0.5}, "'ddpm' has eta 1, not 0.5; use --solver ddim"),
        ({"eta": -0.1}, "eta is -0.1; it must be 0 or more"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"eta": float("inf")}, "eta is inf"),
        ({"steps": 0}, "0 steps cannot be taken"),
        ({"steps": 1001}, "1001 steps cannot be taken from 1000 timesteps"),
        ({"spacing": "square"}, "spacing 'square' is not known"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_sampler(**settings)


def test_cards_differ_where_the_images_do() -> None:
    schedule = make_schedule(CONFIG.diffusion)
    variants = [
        make_sampler(),
        make_sampler("ddim"),
        make_sampler("ddim", steps=49),
        make_sampler("ddim", eta=0.5),
        make_sampler("ddim", spacing="quad"),
        make_sampler("ddim", clip=True),
        make_sampler("ddpm"),
    ]
    cards = [repr(sampler.card(schedule)) for sampler in variants]
    assert len(set(cards)) == len(cards)
    assert make_sampler("ddim").card(schedule) == make_sampler(steps=50, eta=0.0).card(schedule)
