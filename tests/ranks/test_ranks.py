"""The place of a process among equal ones, read from each launcher's variables."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych import backends
from diptych.errors import UserError
from diptych.ranks import ALONE, Ranks, of_environment, own_gpu

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a"}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}  # fmt: skip
SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ALONE),
        (TORCHRUN, Ranks(3, 4, 1, "torchrun")),
        (MPIRUN, Ranks(1, 2, 1, "mpirun")),
        (SRUN, Ranks(5, 8, 1, "srun")),
        (SRUN | TORCHRUN, Ranks(3, 4, 1, "torchrun")),  # torchrun, started once on each node
        (SRUN | MPIRUN, Ranks(1, 2, 1, "mpirun")),  # mpirun within a job
        (
            MPIRUN | {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
            Ranks(1, 2, 1, "torchrun"),
        ),
        (SRUN | {"SLURM_STEP_NUM_TASKS": "6"}, Ranks(5, 6, 1, "srun")),
        ({"RANK": "7"}, ALONE),  # another program's variable
        ({"WORLD_SIZE": "1"}, ALONE),
        ({"SLURM_NTASKS": "4"}, ALONE),  # reserved with salloc, not started by srun
        (SRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"},
         Ranks(0, 1, 0, "srun")),
    ],
)  # fmt: skip
def test_each_launcher_is_understood(variables, expected):
    assert of_environment(variables) == expected


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"WORLD_SIZE": "2"}, ["WORLD_SIZE=2", "RANK is not"]),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ["LOCAL_RANK is not", "torchrun"]),
        (TORCHRUN | {"RANK": "4"}, ["RANK=4", "WORLD_SIZE=4", "0 to 3"]),
        (TORCHRUN | {"RANK": "-1"}, ["RANK=-1"]),
        (TORCHRUN | {"WORLD_SIZE": "0"}, ["WORLD_SIZE=0"]),
        (TORCHRUN | {"WORLD_SIZE": "two"}, ["WORLD_SIZE='two'", "whole number"]),
        (TORCHRUN | {"LOCAL_RANK": "4"}, ["LOCAL_RANK=4"]),
        (TORCHRUN | MPIRUN, ["torchrun says rank 3 of 4", "mpirun says rank 1 of 2"]),
        (SRUN | {"SLURM_JOB_ID": "9", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
         ["8 tasks", "srun --ntasks=1"]),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_by_name(variables, words):
    with pytest.raises(UserError) as refused:
        of_environment(variables)
    for word in words:
        assert word in str(refused.value)


@given(st.integers(0, 1000), st.integers(1, 70))
def test_every_row_is_on_one_rank_in_order(count, world):
    """Batches that ranks do not divide leave some with a row less, or with none."""
    slices = [Ranks(rank, world).rows(count) for rank in range(world)]
    assert [row for each in slices for row in range(count)[each]] == list(range(count))
    sizes = [each.stop - each.start for each in slices]
    assert max(sizes) - min(sizes) <= 1


def test_reading_ranks_loads_no_framework():
    program = (
        "import sys, diptych.ranks as r; r.of_environment(); "
        "sys.exit(bool({'torch', 'jittor', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("visible", "seen"), [(None, "1"), ("", ""), ("4,5", "5"), ("GPU-a", "GPU-a")]
)
def test_a_rank_sees_one_gpu_of_those_that_the_user_shows(monkeypatch, visible, seen):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    own_gpu(Ranks(1, 2, 1, "torchrun"))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_several_ranks_do_not_share_one_gpu(name: str) -> None:
    with pytest.raises(UserError, match="--device cuda:1 would be every rank's"):
        backends.load(name, "cuda:1", ranks=Ranks(0, 2, 0, "torchrun"))
