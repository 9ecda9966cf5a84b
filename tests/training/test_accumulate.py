"""`train.accumulate`: a step in micro-batches has the numbers of the step in one batch."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

import accumulate_jobs as jobs
from diptych.config.load import TrainConfig, load_config
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.ranks import ALONE, Ranks
from diptych.training.batches import Batches
from diptych.training.start import largest_call

CLOSE = 2e-6  # relative; one micro-batch left out, or a mean of means, is 1e-1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("step", [1, 2])
def test_micro_batches_hold_the_rows_of_the_batch(count, step):
    changes = ["model.num_classes=3", "train.weighting=min-snr", "train.noise=host"]
    config = jobs.settings(*changes)
    batches = Batches(config, make_plan(config), jobs.images(), np.arange(11) % 3)
    whole = batches.batch(step)
    parts = whole.split(count)
    assert [part.count for part in parts] == [len(whole.x0)] * min(count, len(whole.x0))
    assert len({part.micro for part in parts}) == len(parts)
    for field in fields(whole):
        theirs = [getattr(part, field.name) for part in parts]
        if field.name == "masks":
            joined = [np.concatenate(each) for each in zip(*theirs, strict=True)]
            assert all((a == b).all() for a, b in zip(joined, whole.masks, strict=True))
        elif field.name not in ("step", "epoch", "part", "micro"):
            assert (np.concatenate(theirs) == getattr(whole, field.name)).all(), field.name


@pytest.mark.parametrize("noise", ["host", "keyed"])
def test_a_step_in_micro_batches_is_the_step(panel, noise):
    """With dropout, a ragged last batch and ranks, some of whose micro-batches are empty."""
    config = jobs.settings(f"train.noise={noise}")
    whole = panel.call(jobs.steps, panel.name, config)
    cut = jobs.settings(f"train.noise={noise}", "train.accumulate=4")
    for world, sizes in ((1, [[2, 2, 2, 2], [1, 1, 1]]), (2, [[1] * 8, [1, 1, 1]])):
        parts = panel.call(jobs.steps, panel.name, cut, world)
        for (loss, gradients, calls), (other, theirs, seen), wanted in zip(
            whole, parts, sizes, strict=True
        ):
            assert len(calls) == 1 and seen == wanted
            assert other == pytest.approx(loss, rel=CLOSE)
            total = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients.values()))
            for name, gradient in gradients.items():
                apart = np.linalg.norm((gradient - theirs[name]).astype(np.float64))
                assert apart <= CLOSE * total, name


@pytest.mark.torch
def test_the_memory_of_a_step_is_that_of_a_micro_batch(panels):
    one, four = (
        panels["torch"].call(
            jobs.peak, jobs.settings("train.batch_size=64", f"train.accumulate={k}")
        )
        for k in (1, 4)
    )
    assert four < 0.3 * one


def test_resumed_training_has_the_same_bits(panel, tmp_path):
    config = jobs.settings("train.accumulate=3", "train.noise=keyed", "train.checkpoint_every=2")
    whole = panel.call(jobs.trained, panel.name, config, tmp_path / "whole", [5])
    assert panel.call(jobs.trained, panel.name, config, tmp_path / "parts", [3, 5]) == whole
    assert load_config(str(tmp_path / "parts/config.yaml")).train.accumulate == 3


def test_memory_is_checked_for_the_largest_call():
    settings = TrainConfig(batch_size=100, accumulate=7)
    assert largest_call(settings, ALONE) == 15
    assert largest_call(settings, Ranks(1, 3)) == 5


def test_more_micro_batches_than_images_are_refused():
    with pytest.raises(UserError, match="accumulate is 9, but a batch has 8 images"):
        jobs.settings("train.accumulate=9")
