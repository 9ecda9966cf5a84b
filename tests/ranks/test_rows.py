"""A rank's batch is its rows of the global batch, to the bit, whatever the batch holds."""

from __future__ import annotations

import itertools
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.config.load import load_config
from diptych.network.plan import make_plan
from diptych.ranks import Ranks, buckets
from diptych.training.batches import Batches

PLAIN = [
    "data.image_size=8", "model.ch=8", "model.norm_groups=4", "model.ch_mult=[1]",
    "model.num_res_blocks=1", "model.attn_resolutions=[]", "train.batch_size=5",
    "data.random_flip=true", "model.dropout=0.5",
]  # fmt: skip
CASES = {
    "plain": [],
    "classes": ["model.num_classes=3", "train.label_dropout=0.4"],
    "weights": ["train.weighting=min-snr"],
    "dequantized": ["data.dequantization=uniform"],
    "device noise": ["train.noise=device"],
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("world", [2, 3, 7])
def test_ranks_hold_the_rows_of_one_process(changes, world):
    """11 images in batches of 5: step 3 has one row, so some ranks have none."""
    config = load_config("tiny", [*PLAIN, *changes])
    images = np.random.default_rng(0).integers(0, 256, (11, 1, 8, 8), np.uint8)
    batches = Batches(config, make_plan(config), images, np.arange(11) % 3)
    for step in (1, 3, 4):
        whole = batches.batch(step)
        parts = [batches.batch(step, Ranks(rank, world)) for rank in range(world)]
        assert whole.part is None and whole.count == len(whole.x0)
        for rank, part in enumerate(parts):
            rows = Ranks(rank, world).rows(len(whole.x0))
            assert (part.count, part.rows) == (len(whole.x0), rows)
        for field in fields(whole):
            if field.name in ("step", "epoch", "part", "micro"):
                continue
            value = getattr(whole, field.name)
            theirs = [getattr(part, field.name) for part in parts]
            if value is None:
                assert theirs == [None] * world
            elif field.name == "masks":
                for k, mask in enumerate(value):
                    assert (np.concatenate([each[k] for each in theirs]) == mask).all()
            else:
                joined = np.concatenate(theirs)
                assert joined.dtype == value.dtype and (joined == value).all(), field.name


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_buckets_hold_every_array_once_in_order(sizes, most):
    found = buckets(sizes, most)
    assert [i for group in found for i in range(len(sizes))[group]] == list(range(len(sizes)))
    for group in found:
        assert len(sizes[group]) == 1 or sum(sizes[group]) <= most
    for before, after in itertools.pairwise(found):  # no group could take the next array
        assert sum(sizes[before]) + sizes[after.start] > most
