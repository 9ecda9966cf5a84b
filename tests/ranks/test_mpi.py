"""Jittor in several processes, connected by OpenMPI: the numbers of one process, and one fate."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import panel_jobs
from diptych.files import read_json
from diptych.runs import checkpoint
from rank_jobs import MORE, apart, bits, changed, mpirun, numbers, settings, validated, words

pytestmark = [pytest.mark.jittor, pytest.mark.slow]

RELATIVE = 2e-6  # as in test_gloo
STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """OpenMPI, which `make mpi` installs; where the panels are required, it is too."""
    if shutil.which("mpirun") is None or shutil.which("mpicc") is None:
        required = os.environ.get("DIPTYCH_REQUIRE_PANELS") == "1"
        assert not required, "OpenMPI is missing: make mpi"
        pytest.skip("OpenMPI is not installed")


@pytest.fixture(scope="module")
def alone(panels, pictures, tmp_path_factory):
    """The same run in one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    panels["jittor"].call(panel_jobs.run, "jittor", settings(pictures, STEPS), run)
    return run


@pytest.fixture(scope="module")
def two(pictures, tmp_path_factory):
    """An undisturbed run of two ranks."""
    run = tmp_path_factory.mktemp("two") / "run"
    return run, mpirun(2, words(run, pictures, STEPS, "--json", backend="jittor"))


def test_two_ranks_have_the_numbers_of_one(alone, two):
    """Five rows on two ranks, and a last batch of one row, of which the second has none."""
    run, ended = two
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["step"] == STEPS  # rank 0 alone prints the result
    assert 0 < apart(run, alone) < RELATIVE
    assert read_json(run / "environment.json")["world"] == 2
    assert "begins after step 0" in (run / "rank-1.log").read_text()


def test_three_ranks_with_micro_batches_keyed_noise_and_validation(panels, pictures, tmp_path):
    """A rank of three has one or two rows of five, and of the last batch one or two of four."""
    config = settings(pictures, STEPS, *MORE)
    panels["jittor"].call(panel_jobs.run, "jittor", config, tmp_path / "one")
    command = words(tmp_path / "more", pictures, STEPS, *changed(*MORE), backend="jittor")
    ended = mpirun(3, command)
    assert ended.code == 0, ended.err
    assert 0 < apart(tmp_path / "more", tmp_path / "one") < RELATIVE
    losses = validated(tmp_path / "one")
    assert len(losses) == STEPS / 2
    assert validated(tmp_path / "more") == pytest.approx(losses, rel=RELATIVE)


def test_a_mean_of_the_ranks_means_is_found(alone, pictures, tmp_path):
    run = tmp_path / "run"
    ended = mpirun(2, words(run, pictures, STEPS, backend="jittor"), "mean_of_means:0:-1")
    assert ended.code == 0, ended.err
    assert apart(run, alone) > 1000 * RELATIVE


def test_stopped_killed_and_resumed_equals_undisturbed(two, pictures, tmp_path):
    """SIGTERM to rank 1 at step 4, kill -9 of rank 0 at step 6, and the rest: same bits."""
    run = tmp_path / "run"
    command = words(run, pictures, STEPS, backend="jittor")
    stopped = mpirun(2, command, "signalled:3:1")
    assert stopped.code == 143, stopped.err
    assert stopped.err.count("stopped at step 3 of 6, saved") == 1
    assert checkpoint.latest(run).name == "step-00000003"

    killed = mpirun(2, [*command, "--resume"], "killed:6:0")
    assert killed.code == 128 + 9, killed.err
    written = {"step-00000003", "step-00000004"}  # a thread may still have been writing step 4
    assert checkpoint.latest(run).name in written

    planted = mpirun(2, [*command, "--resume"], "other_weights:5:1", "slow_word:0:0")
    assert planted.code == 2
    assert planted.err.count("rank 1 has other weights after step 6 than rank 0") == 1
    assert checkpoint.latest(run).name in written

    ended = mpirun(2, [*command, "--resume"])
    assert ended.code == 0, ended.err
    assert bits(run) == bits(two[0])
    assert (numbers(run) == numbers(two[0])).all()
