"""Keyed noise and masks: every way to draw them gives the bits of `diptych.rng`."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import keyed_jobs
import panel_jobs
from diptych import rng
from diptych.config.load import load_config
from diptych.types import Array


def expected() -> list[Array]:
    """The arrays of `keyed_jobs.blocks` by NumPy, element by element from the public functions."""
    found: list[Array] = []
    for (seed, purpose, b, block), rows, count in keyed_jobs.DRAWS:
        found.append(np.stack([
            rng.keyed_normal(seed, purpose, (8 * count,), row, b, 8 * block) for row in rows
        ]))  # fmt: skip
        draws = rng.words(seed, purpose, rows[0], b, 16 * block, 16 * count, "<u2")
        found += [(draws >= limit).astype(np.uint8) for limit in keyed_jobs.LIMITS]
    return found


@pytest.fixture
def torch_panel(panels):
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    return panels["torch"]


def check(got: list[Array]) -> None:
    for mine, theirs in zip(expected(), got, strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        assert mine.tobytes() == theirs.tobytes()


def test_a_panel_draws_the_host_s_bits(panel):
    check(panel.call(keyed_jobs.blocks, panel.name, "panel"))


@pytest.mark.torch
def test_pytorch_s_operators_draw_the_host_s_bits(torch_panel):
    check(torch_panel.call(keyed_jobs.blocks, "torch", "operators"))


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_s_kernels_draw_the_host_s_bits(torch_panel):
    """By Triton's interpreter, so without a GPU."""
    check(torch_panel.call(keyed_jobs.blocks, "torch", "triton"))


def test_training_takes_the_same_noise_and_masks_from_device_and_host(panel):
    config = panel_jobs.small("train.noise=keyed", "model.dropout=0.25")
    found = panel.call(keyed_jobs.losses, panel.name, config)
    for own, given, slices in (found[:3], found[3:]):
        assert own == given
        assert slices == pytest.approx(own, rel=1e-6)
    assert found[0] != found[3]


def test_samples_of_keyed_noise_are_their_own(panel):
    """An image depends on its index, not on the others; and not on the host's noise."""
    config = load_config("tiny", panel_jobs.SMALL)
    many = panel.call(keyed_jobs.drawn, panel.name, config, [0, 5, 2**40], "keyed")
    few = panel.call(keyed_jobs.drawn, panel.name, config, [5, 5, 1], "keyed")
    host = panel.call(keyed_jobs.drawn, panel.name, config, [0, 5, 2**40], "host")
    assert np.abs(many[1] - few[0]).max() < 1e-5
    assert np.abs(many - host).max() > 0.1
