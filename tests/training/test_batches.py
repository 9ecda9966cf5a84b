"""A batch is a pure function of its step: order, flips, timesteps, noise and masks."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from diptych import rng
from diptych.backends.protocol import Batch
from diptych.config.load import Config, load_config
from diptych.data import load_dataset
from diptych.diffusion.schedule import make_schedule
from diptych.network.embedding import time_embedding
from diptych.network.plan import make_plan
from diptych.training.batches import Batches, to_float, to_uint8
from diptych.types import Pixels
from properties import given, settings, st


def config_of(*changes: str) -> Config:
    return load_config("tiny", ["data.image_size=4", "train.noise=host", *changes])


def numbered(count: int) -> Pixels:
    """Images (N, 1, 4, 4) that carry their number: high byte on the left, low on the right."""
    images = np.zeros((count, 1, 4, 4), np.uint8)
    images[..., :2] = (np.arange(count) // 256)[:, None, None, None]
    images[..., 2:] = (np.arange(count) % 256)[:, None, None, None]
    return images


def numbers(batch: Batch) -> list[int]:
    """Numbers of the images in a batch, if nothing is flipped."""
    pixels = to_uint8(batch.x0).astype(int)
    held: list[int] = (pixels[:, 0, 0, 0] * 256 + pixels[:, 0, 0, 3]).tolist()
    return held


def batches(config: Config, count: int) -> Batches:
    return Batches(config, make_plan(config), numbered(count))


def digest(batch: Batch, tables: bool = True) -> str:
    """Every bit of a batch; `tables=False` leaves out what a processor's sine may round."""
    parts: list[npt.NDArray[Any]] = [batch.x0, batch.t]
    parts += [batch.alpha, batch.sigma, batch.embedding] if tables else []
    parts += [] if batch.eps is None else [batch.eps]
    parts += batch.masks or ()
    held = b"".join(str((a.dtype, a.shape)).encode() + a.tobytes() for a in parts)
    return hashlib.sha256(held + f"{batch.step} {batch.epoch}".encode()).hexdigest()


RICH = ["data.random_flip=true", "model.dropout=0.2", "train.batch_size=7"]


@given(st.permutations(range(1, 13)))
@settings(max_examples=10)
def test_random_access_equals_sequential(order: list[int]) -> None:
    """So a resumed run meets exactly the batches of an uninterrupted one."""
    config = config_of(*RICH)
    sequential = [digest(batches(config, 30).batch(step)) for step in range(1, 13)]
    source = batches(config, 30)
    assert [digest(source.batch(step)) for step in order] == [sequential[s - 1] for s in order]
    assert len(set(sequential)) == 12


@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 5))
def test_an_epoch_visits_each_image_exactly_once(count: int, size: int, epoch: int) -> None:
    """The last batch is smaller where the size does not divide: neither dropped nor filled."""
    source = batches(config_of(f"train.batch_size={size}"), count)
    per_epoch = source.steps_per_epoch
    assert per_epoch == -(-count // size)
    drawn = [source.batch(epoch * per_epoch + k) for k in range(1, per_epoch + 1)]
    assert sorted(number for batch in drawn for number in numbers(batch)) == list(range(count))
    assert all(batch.epoch == epoch for batch in drawn)
    assert [len(batch.x0) for batch in drawn[:-1]] == [size] * (per_epoch - 1)
    assert len(drawn[-1].x0) == count - size * (per_epoch - 1)


def test_the_order_differs_by_epoch_and_by_seed() -> None:
    one, other = (batches(config_of(f"seed={seed}"), 500) for seed in (0, 1))
    orders = [tuple(source.order(epoch)) for source in (one, other) for epoch in range(3)]
    assert len(set(orders)) == 6
    assert np.array_equal(one.order(0), rng.stream(0, "order", 0).permutation(500))


def test_fields_agree_with_the_schedule_and_the_streams() -> None:
    config = config_of("train.batch_size=9", "seed=5")
    source, table = batches(config, 40), make_schedule(config.diffusion)
    batch = source.batch(4)
    t = rng.antithetic_timesteps(5, 4, 9, 1000)
    assert np.array_equal(batch.t, t) and batch.t.dtype == np.int64
    for got, exact in ((batch.alpha, table.alpha), (batch.sigma, table.sigma)):
        assert got.dtype == np.float32 and got.shape == (9, 1, 1, 1)
        assert np.array_equal(got.ravel(), exact[t].astype(np.float32))
    assert np.array_equal(batch.embedding, time_embedding(t, config.model.ch))
    assert batch.eps is not None and batch.eps.dtype == np.float32
    assert np.array_equal(batch.eps, rng.normal(5, "training_noise", batch.x0.shape, 4))
    assert batch.masks is None, "no dropout, no masks"
    assert (batch.step, batch.epoch) == (4, 0)


def test_each_residual_block_has_its_own_mask() -> None:
    config = config_of("model.dropout=0.25", "train.batch_size=3")
    plan = make_plan(config)
    masks = batches(config, 10).batch(2).masks
    assert masks is not None and len(masks) == len(plan.blocks)
    for k, (mask, block) in enumerate(zip(masks, plan.blocks, strict=True)):
        shape = (3, *block.shape)
        assert np.array_equal(mask, rng.keep_mask(config.seed, 2, k, shape, 0.25))


def test_noise_on_the_device_leaves_host_noise_out_and_all_else_alone() -> None:
    host, device = (batches(config_of(*RICH, f"train.noise={n}"), 30) for n in ("host", "device"))
    one, other = host.batch(3), device.batch(3)
    assert other.eps is None and other.masks is None
    assert np.array_equal(one.x0, other.x0) and np.array_equal(one.t, other.t)


def test_flips_mirror_half_of_the_images_left_to_right() -> None:
    config = config_of("train.batch_size=100")
    plain = batches(config, 100)
    flipping = batches(config_of("train.batch_size=100", "data.random_flip=true"), 100)
    shares = []
    for step in range(1, 41):
        still, turned = plain.batch(step), flipping.batch(step)
        mirrored = np.array(
            [np.array_equal(a, b[..., ::-1]) for a, b in zip(still.x0, turned.x0, strict=True)]
        )
        same = np.array([np.array_equal(a, b) for a, b in zip(still.x0, turned.x0, strict=True)])
        assert np.all(mirrored | same)
        shares.append((mirrored & ~same).sum())
        assert np.array_equal(still.t, turned.t)
    symmetric = 1  # image 0 is its own mirror image
    assert abs(np.mean(shares) / (100 - symmetric) - 0.5) < 4 * 0.5 / (40 * 99) ** 0.5
    assert len(set(shares)) > 1


def test_the_images_are_left_alone() -> None:
    images = numbered(20)
    kept = images.copy()
    images.setflags(write=False)
    source = Batches(config_of(*RICH), make_plan(config_of(*RICH)), images)
    for step in range(1, 7):
        source.batch(step)
    assert np.array_equal(images, kept)


# Pixels


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    floats = to_float(pixels)
    assert floats.dtype == np.float32 and (floats[0], floats[-1]) == (-1, 1)
    np.testing.assert_allclose(floats, np.arange(256) / 127.5 - 1, rtol=0, atol=1e-7)
    assert np.array_equal(to_uint8(floats), pixels)


@given(st.floats(-3, 3, width=32))
def test_floats_become_the_nearest_pixel(value: float) -> None:
    pixel = int(to_uint8(np.array([value], np.float32))[0])
    exact = min(max((value + 1) * 127.5, 0), 255)
    assert abs(pixel - exact) <= 0.5 + 1e-4


# What the batches of the packaged images were when they were fixed. A change here is a change of
# every run: it belongs under "Numerics" in the change log.
GOLDEN = {
    1: "5b8bcc3c6e1211da6beea60e8ce028abe077ae329894d7c4c3e85486e7a065f8",
    157: "f386bdd6422344ed1651ffabc6f5e85e0be5e0f83d5798e2d7f03021c852aae0",
    158: "ed5a7786d2b9986da867007fc38fbf734f4d72d09f0031ec8ed7c8441f6a90b7",
    1000: "39b352ec301b0ea942e5bbdb77608e216f45216614a17ff7a7777bea90325424",
}


@pytest.fixture(scope="module")
def packaged() -> Any:
    config = load_config("tiny", ["data.random_flip=true", "model.dropout=0.1", "train.noise=host"])
    images = load_dataset("mnist-10k", image_size=14).images
    return Batches(config, make_plan(config), images)


@pytest.mark.parametrize("step", GOLDEN)
def test_the_batches_are_those_of_every_earlier_run(packaged: Batches, step: int) -> None:
    assert digest(packaged.batch(step), tables=False) == GOLDEN[step]
