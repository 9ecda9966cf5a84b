"""The official transforms: against their formulas, and back to exactly the same pixels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diptych import rng
from diptych.config.load import Config, load_config
from diptych.data.preprocess import GAUSSIAN, LAMBDA, Preprocess, preprocess_of
from diptych.diffusion.schedule import make_schedule
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches, to_float
from properties import given, st

EVERY = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
RESCALED = Preprocess()
UNIT = Preprocess(rescaled=False)
LOGIT = Preprocess(rescaled=False, logit_transform=True)
WAYS = {
    "rescaled": RESCALED,
    "unit": UNIT,
    "logit": LOGIT,
    "rescaled, uniform": Preprocess(dequantization="uniform"),
    "unit, uniform": Preprocess(rescaled=False, dequantization="uniform"),
    "logit, uniform": Preprocess(False, True, "uniform"),
}


def official(way: Preprocess, pixels: np.ndarray, drawn: np.ndarray | None = None) -> np.ndarray:
    """The official formulas in float64, with the given noise."""
    x = pixels / 255.0
    if way.dequantization == "uniform":
        x = x / 256.0 * 255.0 + drawn / 256.0
    if way.dequantization == "gaussian":
        x = x + drawn * 0.01
    if way.rescaled:
        return 2 * x - 1.0
    if way.logit_transform:
        x = 1e-6 + (1 - 2e-6) * x
        return np.log(x) - np.log1p(-x)
    return x


@pytest.mark.parametrize("way", [RESCALED, UNIT, LOGIT], ids=["rescaled", "unit", "logit"])
def test_the_transforms_are_the_official_ones(way: Preprocess) -> None:
    floats = way.floats(EVERY, 0, 1)
    assert floats.dtype == np.float32 and floats.shape == EVERY.shape
    assert np.allclose(floats, official(way, EVERY), rtol=1e-6, atol=1e-7)


def test_the_default_is_what_training_always_did() -> None:
    assert np.array_equal(RESCALED.floats(EVERY, 3, 9), to_float(EVERY))
    assert preprocess_of(load_config("mnist").data) == RESCALED and RESCALED.plain


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**9))
def test_uniform_noise_is_exact_and_inside_its_pixel(seed: int, step: int) -> None:
    """float32 holds the sum of pixel and noise without rounding: nothing slips to the next one."""
    way = WAYS["unit, uniform"]
    floats = way.floats(EVERY, seed, step)
    drawn = floats.astype(np.float64) * 256 - EVERY
    assert (drawn > 0).all() and (drawn < 1).all()
    assert np.array_equal(drawn * 65536 % 2, np.ones_like(drawn))
    assert np.allclose(floats, official(way, EVERY, drawn), rtol=0, atol=1e-9)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@given(st.integers(0, 2**63 - 1), st.integers(1, 10**9))
def test_the_pixels_come_back(way: Preprocess, seed: int, step: int) -> None:
    assert np.array_equal(way.pixels(way.floats(EVERY, seed, step)), EVERY)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_whatever_a_network_draws_becomes_a_pixel(way: Preprocess) -> None:
    drawn = np.array([-1e30, -1e4, -50, -1, 0, 0.5, 1, 50, 1e4, 1e30], np.float32)
    pixels = way.pixels(drawn)
    assert pixels.dtype == np.uint8 and pixels[0] == 0 and pixels[-1] == 255
    assert (np.diff(pixels.astype(int)) >= 0).all()


def test_the_official_way_back_is_ours_but_for_uniform_noise() -> None:
    """Theirs: sigmoid, or (x + 1) / 2; then times 255, rounded (by their writer of pictures)."""
    x = np.linspace(-16, 16, 4001).astype(np.float32)
    theirs = np.floor(255 / (1 + np.exp(-x.astype(np.float64))) + 0.5)
    assert np.abs(LOGIT.pixels(x) - theirs).max() <= 1
    assert (LOGIT.pixels(x) != theirs).mean() < 0.001
    u = np.linspace(0, 1, 4001).astype(np.float32)
    assert np.abs(UNIT.pixels(u) - np.floor(255 * u.astype(np.float64) + 0.5)).max() <= 1


def test_gaussian_noise_has_the_official_size_and_is_keyed() -> None:
    way = Preprocess(dequantization="gaussian")
    zeros = np.full((64, 3, 16, 16), 128, np.uint8)
    drawn = (way.floats(zeros, 0, 1) - to_float(zeros)) / (2 * GAUSSIAN)
    assert drawn.std() == pytest.approx(1, abs=0.02) and abs(drawn.mean()) < 0.02
    expected = rng.normal(5, "dequantization", EVERY.shape, 7)
    unit = Preprocess(False, False, "gaussian")
    assert np.allclose(unit.floats(EVERY, 5, 7), official(unit, EVERY, expected), atol=1e-6)
    assert not np.array_equal(way.floats(EVERY, 0, 1), way.floats(EVERY, 0, 2))
    assert not np.array_equal(way.floats(EVERY, 0, 1), way.floats(EVERY, 1, 1))


def config(*changes: str) -> Config:
    base = ["data.image_size=8", "data.random_flip=true", "train.batch_size=3"]
    return load_config("tiny", [*base, *changes])


def batches(*changes: str) -> Batches:
    chosen = config(*changes)
    images = np.arange(4 * 64, dtype=np.uint8).reshape(4, 1, 8, 8)
    return Batches(chosen, make_plan(chosen), images)


@pytest.mark.parametrize("kind", ["uniform", "gaussian"])
def test_a_batch_with_noise_is_a_function_of_its_step(kind: str) -> None:
    source = batches(f"data.dequantization={kind}")
    forwards = [source.batch(step).x0 for step in range(1, 7)]
    backwards = [source.batch(step).x0 for step in range(6, 0, -1)][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({x0.tobytes() for x0 in forwards}) == 6


def test_noise_changes_neither_flips_nor_anything_else() -> None:
    host = "train.noise=host"
    plain, noisy = batches(host), batches(host, "data.dequantization=uniform")
    for step in range(1, 7):
        a, b = plain.batch(step), noisy.batch(step)
        assert np.array_equal(noisy.preprocess.pixels(b.x0), plain.preprocess.pixels(a.x0))
        assert np.array_equal(a.t, b.t)
        assert a.eps is not None and b.eps is not None and np.array_equal(a.eps, b.eps)


def test_images_in_another_order_in_memory_give_the_same_bits_in_the_same_order() -> None:
    source = batches()
    pixels = np.ascontiguousarray(source.images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not pixels.flags.c_contiguous or pixels.shape[1] == 1
    other = Batches(source.config, source.plan, pixels)
    for step in (1, 2):
        a, b = source.batch(step).x0, other.batch(step).x0
        assert np.array_equal(a, b) and b.flags.c_contiguous


def engine(way: Preprocess) -> Engine:
    chosen = config()
    backend: Any = SimpleNamespace(clip=None)
    return Engine(backend, None, make_plan(chosen), make_schedule(chosen.diffusion), way)


def test_what_samples_become_follows_the_data() -> None:
    drawn = np.array([[-2.0, 0.0, 2.0]], np.float32)
    assert engine(RESCALED).pixels(drawn).tolist() == [[0, 128, 255]]
    logit = 1 / (1 + np.exp(-drawn.astype(np.float64)))
    expected = np.rint(255 * (logit - LAMBDA) / (1 - 2 * LAMBDA))
    assert engine(LOGIT).pixels(drawn).tolist() == expected.tolist() == [[30, 128, 225]]


@pytest.mark.parametrize("way", [UNIT, LOGIT], ids=["unit", "logit"])
@pytest.mark.parametrize("limit", [{"clip": True}, {"threshold": 0.99}, {"solver": "ddpm-noisy"}])
def test_a_limit_of_other_images_is_refused(way: Preprocess, limit: dict[str, Any]) -> None:
    sampler = make_sampler(timesteps=1000, **limit)
    with pytest.raises(UserError, match=r"not in \[-1, 1\].*use a solver without"):
        engine(way).denoiser(sampler)
    engine(RESCALED).denoiser(sampler)
