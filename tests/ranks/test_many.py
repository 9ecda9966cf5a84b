"""8 and 64 ranks have the numbers of one process, ranks without rows too."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import many_ranks
import panel_jobs
from diptych.files import read_json
from rank_jobs import apart, settings, under, words

pytestmark = [pytest.mark.torch, pytest.mark.slow]

RELATIVE = 2e-6  # as in test_gloo
STEPS = 4


@pytest.fixture(scope="module")
def alone(panels) -> np.ndarray:
    """Loss and norm of each step of one process, (steps, 2)."""
    found = panels["torch"].call(many_ranks.train, 1, STEPS, 2**23)
    assert found["rows"].tolist() == [[70, 31, 70, 31]] and found["messages"] == 0
    return found["numbers"][0]


@pytest.mark.parametrize(("world", "bucket"), [(8, 2**23), (64, 1500)])
def test_many_ranks_have_the_numbers_of_one(panels, alone, world, bucket):
    """Real rows, learners and buckets in threads, and a ring's order of sums in float32."""
    found = panels["torch"].call(many_ranks.train, world, STEPS, bucket)
    numbers, rows = found["numbers"], found["rows"]
    assert (rows.sum(0) == [70, 31, 70, 31]).all() and rows.max() - rows.min() <= 70 // world + 1
    assert (rows[:, 1] == 0).sum() == (33 if world == 64 else 0)
    assert (numbers == numbers[0]).all() and found["same_weights"]
    assert found["messages"] == STEPS if bucket > 2**20 else found["messages"] > 3 * STEPS
    assert 0 < np.abs(numbers[0] / alone - 1).max() < RELATIVE


def test_a_rank_that_is_not_heard_is_no_rounding(panels, alone):
    """The planted fault: one of 64 ranks, with one row, is left out of each sum."""
    found = panels["torch"].call(many_ranks.train, 64, 1, 2**23, 40)
    assert np.abs(found["numbers"][0] / alone[:1] - 1).max() > 1000 * RELATIVE


def test_eight_processes_have_the_numbers_of_one(panels, pictures, tmp_path):
    """Under torchrun and gloo: batches of five rows and of one, so some ranks never have any."""
    steps = 3
    panels["torch"].call(panel_jobs.run, "torch", settings(pictures, steps), tmp_path / "one")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = tmp_path / "eight"
    ended = under([*launcher, "--nproc-per-node", "8"], words(run, pictures, steps))
    assert ended.code == 0, ended.err
    assert read_json(run / "environment.json")["world"] == 8
    assert 0 < apart(run, tmp_path / "one") < RELATIVE
    assert len(list(run.glob("rank-*.log"))) == 7
