"""Keyed streams: equal keys give equal bits forever, different keys give independent ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diptych.rng import (
    PURPOSES,
    antithetic_timesteps,
    keep_mask,
    keyed_normal,
    normal,
    normal_per_image,
    normal_table,
    stream,
)
from properties import given, st

WORD = 2**64


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """One block of Philox-4x64-10 in plain integers (Salmon et al. 2011, section 4.3)."""
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        high0, low0 = divmod(x0 * 0xD2E7470EE14C6C93, WORD)
        high1, low1 = divmod(x2 * 0xCA5A826395121157, WORD)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return [x0, x1, x2, x3]


seeds = st.integers(0, 2**63 - 1)
purposes = st.sampled_from(sorted(PURPOSES))
indices = st.integers(0, 2**63)
keys = st.tuples(seeds, purposes, indices, indices)


@given(keys)
def test_a_stream_is_philox_at_its_key_and_counter(key: tuple[int, str, int, int]) -> None:
    """Key (seed, purpose), counter (n, 0, b, a): no two streams ever share a block."""
    seed, purpose, a, b = key
    raw = stream(*key).bit_generator.random_raw(12).tolist()
    blocks = [philox((seed, PURPOSES[purpose]), (n, 0, b, a)) for n in (1, 2, 3)]
    assert raw == [word for block in blocks for word in block]


@given(keys, st.lists(keys, max_size=3))
def test_equal_keys_give_equal_bits_whatever_was_drawn_between(
    key: tuple[int, str, int, int], others: list[tuple[int, str, int, int]]
) -> None:
    first = stream(*key).random(5)
    for other in others:
        stream(*other).random(100)
    np.random.default_rng(0).random(3)
    assert np.array_equal(stream(*key).random(5), first)


@given(keys, keys)
def test_different_keys_give_different_bits(
    one: tuple[int, str, int, int], other: tuple[int, str, int, int]
) -> None:
    same = stream(*one).bit_generator.random_raw(4) == stream(*other).bit_generator.random_raw(4)
    assert np.all(same) if one == other else not np.any(same)


def test_each_part_of_the_key_counts() -> None:
    base = (3, "flip", 5, 7)
    changed = [base, (4, "flip", 5, 7), (3, "order", 5, 7), (3, "flip", 6, 7), (3, "flip", 5, 8)]
    swapped = [(3, "flip", 7, 5), (5, "flip", 3, 7)]
    drawn = {stream(*key).bytes(32) for key in changed + swapped}
    assert len(drawn) == len(changed + swapped)


def test_purposes_keep_their_numbers() -> None:
    """A number that changes, or is used twice, changes or correlates every run."""
    assert PURPOSES == {
        "order": 1,
        "timestep": 2,
        "training_noise": 3,
        "flip": 4,
        "dropout": 5,
        "initial_noise": 6,
        "solver_noise": 7,
        "weights": 8,
        "dequantization": 10,
        "label_dropout": 20,
        "own_network": 30,
        "held_out": 40,
        "validation_noise": 41,
    }


# What the streams gave when they were fixed (NumPy 1.26.4). A change here is a change of every run
# and every sample: it belongs under "Numerics" in the change log.
GOLDEN: dict[str, tuple[Callable[[], Any], str]] = {
    "order": (
        lambda: stream(0, "order", 2).permutation(60_000),
        "d876c50f06cd6c15691815f3e1ae49c8030a4897ebaf8e102f52d84e17fb0c0e",
    ),
    "flip": (
        lambda: stream(1, "flip", 3).random(64),
        "9101f4ed6e0af6f8a21a745f184e0adb5bdefc4426c8c22300698e92b7297a8f",
    ),
    "weights": (
        lambda: stream(2, "weights", 5).random((64, 32, 3, 3)),
        "2901debb2542146b01dcdb50c1dc79e3ab4594327389fd5281030c6445d130d7",
    ),
    "normal": (
        lambda: normal(3, "training_noise", (64, 1, 28, 28), 938),
        "8036ecb5a48294f37acadac1c92328dfb7439c26b8db41d74cb95415489fadc4",
    ),
    "timesteps": (
        lambda: antithetic_timesteps(4, 100, 64, 1000),
        "1e4eb3857b6b529f0fd44aa48363209855d99659174264673a8fd4366c4db581",
    ),
    "mask": (
        lambda: keep_mask(5, 7, 2, (16, 32, 14, 14), 0.1),
        "1bfe3a63f7addcf1b0566480835140df148c9b263f001f21ba74bdc45232aa25",
    ),
    "keyed": (
        lambda: keyed_normal(3, "training_noise", (64, 1, 28, 28), 938),
        "6568050368fb57bcc7c7d7bbfa37b81aba8b04850549e7be5a1d9a1b4e9a2641",
    ),
    "initial": (
        lambda: normal_per_image(6, "initial_noise", [0, 9, 49_999], (3, 32, 32)),
        "7f072e5060674df013d515cadda1ddd7f6352438dd02f47449704d9be531077f",
    ),
    "solver": (
        lambda: normal_per_image(7, "solver_noise", [1], (1, 28, 28), step=49),
        "46ce8a0fb9e91ff7ea49ed8f3be71ab1e2007d26b1a79f6f251e8168b918731c",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_streams_are_those_of_every_earlier_run(name: str) -> None:
    draw, expected = GOLDEN[name]
    assert hashlib.sha256(draw().tobytes()).hexdigest() == expected


@given(seeds, st.integers(0, 10**6), st.integers(0, 10**4))
def test_noise_of_an_image_is_its_own(seed: int, image: int, step: int) -> None:
    """Row i belongs to images[i]: whatever stands beside it, in whatever order."""
    shape = (2, 3, 5)
    alone = normal(seed, "solver_noise", shape, image, step)
    images = [image + 1, image, 0]
    together = normal_per_image(seed, "solver_noise", images, shape, step)
    assert together.dtype == alone.dtype == np.float32 and together.shape == (3, *shape)
    assert np.array_equal(together[1], alone)
    backwards = normal_per_image(seed, "solver_noise", images[::-1], shape, step)
    assert np.array_equal(backwards[::-1], together)


def keyed_by_hand(half: int) -> np.float32:
    """The normal of 32 bits in plain integers: the formula of `diptych.rng`, written again."""
    odd = half | 1
    octave = odd.bit_length() - 1
    part, place = divmod((odd << (31 - octave)) - 2**31, 2**23)
    value, slope = (int(x) for x in normal_table()[256 * octave + part])
    size = value - (slope * place + 2**22) // 2**23
    return np.float32(-size if half % 2 else size) * np.float32(2.0**-28)


@given(keys, st.integers(0, 2**40))
def test_keyed_normals_are_those_of_plain_integers(
    key: tuple[int, str, int, int], first: int
) -> None:
    seed, purpose, a, b = key
    drawn = keyed_normal(seed, purpose, (13,), a, b, first)
    for i in range(first, first + 13):
        word = philox((seed, PURPOSES[purpose]), (i // 8 + 1, 0, b, a))[i // 2 % 4]
        expected = keyed_by_hand((word >> 32 * (i % 2)) % 2**32)
        assert drawn[i - first].tobytes() == expected.tobytes()


def test_the_ends_of_the_keyed_normals() -> None:
    """The largest values come from the smallest words; the smallest is 0, without a sign."""
    ends = [0, 1, 2, 3, 2**32 - 2, 2**32 - 1]
    from diptych.rng import _normal_of

    found = _normal_of(np.array(ends, np.uint32))
    assert found.tobytes() == np.array([keyed_by_hand(h) for h in ends]).tobytes()
    assert 6.33 < found[0] == -found[1] < 6.34
    assert np.array_equal(found[4:], [0, 0]) and not np.signbit(found[4:]).any()


def test_a_keyed_stream_may_be_entered_anywhere() -> None:
    """So a slice of a batch draws its own rows."""
    whole = keyed_normal(1, "training_noise", (7, 3, 5, 5), 4)
    mask = keep_mask(1, 4, 2, (7, 3, 5, 5), 0.25)
    for row in range(7):
        first = row * 75
        assert np.array_equal(
            keyed_normal(1, "training_noise", (7 - row, 3, 5, 5), 4, 0, first), whole[row:]
        )
        assert np.array_equal(keep_mask(1, 4, 2, (7 - row, 3, 5, 5), 0.25, first), mask[row:])


def test_the_table_is_of_the_half_normal_s_quantile() -> None:
    """Lines of sqrt(2) erfcinv(q), each within 2e-6 of the float64 function but at the ends."""
    from scipy.special import erfcinv

    table = normal_table().astype(np.float64) * 2.0**-28
    j, k = np.arange(256), np.arange(32)[:, None]
    start, step = (1 + j / 256) * 2.0 ** (k - 32), 2.0 ** (k - 40)
    for at in (0.0, 0.5, 1.0):
        exact = np.sqrt(2) * erfcinv(start + at * step)
        error = np.abs(table[:, 0] - at * table[:, 1] - exact.ravel())
        assert error.max() < 2e-6


@pytest.mark.parametrize("drawn", [normal, keyed_normal])
def test_normal_noise_is_normal(drawn: Callable[..., Any]) -> None:
    draws = drawn(0, "training_noise", (400_000,), 1).astype(np.float64)
    count = draws.size
    assert abs(draws.mean()) < 4 / count**0.5
    assert abs(draws.var() - 1) < 4 * (2 / count) ** 0.5
    assert abs((draws**4).mean() - 3) < 4 * (96 / count) ** 0.5
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert np.abs(draws).max() > 4, "the tails are missing"


def test_the_tails_of_keyed_normals_have_their_weight() -> None:
    """16 million draws: a tail beyond 4 or 5 sigma within 5 standard errors."""
    draws = np.abs(keyed_normal(0, "training_noise", (1 << 24,), 1))
    for limit in (3.0, 4.0, 4.8):
        expected = draws.size * 2 * stats.norm.sf(limit)
        assert abs((draws > limit).sum() - expected) < 5 * expected**0.5


def test_across_images_noise_is_normal_too() -> None:
    """The same pixel of 20,000 neighbouring images: a weak key schedule would show here."""
    draws = normal_per_image(0, "initial_noise", range(20_000), (2,)).astype(np.float64)
    for pixel in draws.T:
        assert stats.kstest(pixel, "norm").pvalue > 1e-3
        assert abs(np.corrcoef(pixel[:-1], pixel[1:])[0, 1]) < 4 / len(pixel) ** 0.5


NEIGHBOURS = [
    (0, "training_noise", 1, 0),
    (1, "training_noise", 1, 0),
    (0, "training_noise", 2, 0),
    (0, "training_noise", 1, 1),
    (0, "solver_noise", 1, 0),
    (0, "initial_noise", 1, 0),
    (2, "training_noise", 1, 0),
]


def test_neighbouring_streams_are_independent() -> None:
    count = 200_000
    drawn = [stream(*key).standard_normal(count) for key in NEIGHBOURS]
    bits = [np.unpackbits(np.frombuffer(stream(*key).bytes(count), np.uint8)) for key in NEIGHBOURS]
    for i, j in combinations(range(len(NEIGHBOURS)), 2):
        assert abs(np.corrcoef(drawn[i], drawn[j])[0, 1]) < 4 / count**0.5
        assert abs((bits[i] ^ bits[j]).mean() - 0.5) < 4 * 0.5 / bits[i].size ** 0.5


def test_this_instrument_sees_a_correlation_of_one_in_fifty() -> None:
    a, b = (stream(*key).standard_normal(200_000) for key in NEIGHBOURS[:2])
    assert abs(np.corrcoef(a, b + 0.02 * a)[0, 1]) > 4 / 200_000**0.5


# Timesteps


@given(seeds, st.integers(1, 10**6), st.integers(1, 300), st.integers(2, 2000))
def test_timesteps_are_antithetic(seed: int, step: int, batch: int, timesteps: int) -> None:
    """n // 2 + 1 draws, then their mirror images, cut to n: as the official training loop."""
    t = antithetic_timesteps(seed, step, batch, timesteps)
    assert t.shape == (batch,) and t.dtype == np.int64
    assert t.min() >= 0 and t.max() < timesteps
    half = batch // 2 + 1
    mirrored = t[half:]
    assert np.array_equal(mirrored, timesteps - 1 - t[: len(mirrored)])
    assert np.array_equal(t, antithetic_timesteps(seed, step, batch, timesteps))


def test_timesteps_are_uniform_and_change_with_the_step() -> None:
    t = np.concatenate([antithetic_timesteps(0, step, 64, 10) for step in range(1, 1001)])
    assert stats.chisquare(np.bincount(t, minlength=10)).pvalue > 1e-3
    one, other = (antithetic_timesteps(0, step, 64, 1000) for step in (1, 2))
    assert not np.array_equal(one, other)


# Dropout


@pytest.mark.parametrize("rate", [0.0, 1e-5, 0.1, 0.25, 0.5, 0.9, 0.9999])
def test_a_mask_drops_at_its_rate(rate: float) -> None:
    mask = keep_mask(0, 1, 0, (64, 32, 14, 14), rate)
    assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1}
    exact = round(rate * 65536) / 65536
    assert abs(exact - rate) <= 1 / 131_072
    assert abs((1 - mask.mean()) - exact) <= 4 * (exact * (1 - exact) / mask.size) ** 0.5


def test_a_mask_is_keyed_by_step_and_layer() -> None:
    shape = (8, 4, 6, 6)
    masks = [
        keep_mask(s, t, k, shape, 0.5) for s, t, k in [(0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1)]
    ]
    for a, b in combinations(masks, 2):
        assert 0.35 < (a ^ b).mean() < 0.65
    assert np.array_equal(keep_mask(0, 1, 0, shape, 0.5), masks[0])
    assert keep_mask(0, 1, 0, shape, 0.5).shape == shape


def test_masks_of_two_rates_are_nested() -> None:
    """The same draws decide at every rate: raising the rate drops more, and nothing else."""
    small, large = (keep_mask(0, 3, 1, (1000,), rate) for rate in (0.1, 0.4))
    assert np.all(large <= small)


def test_an_unknown_purpose_is_a_bug() -> None:
    with pytest.raises(KeyError):
        stream(0, "unknown")
