"""Sums over ranks, Jittor backend; its mirror is `diptych.backends.torch.collective`.

Jittor's own MPI operator does the work; on GPUs it hands over to NCCL where `nccl_include_path` and
`nccl_lib_path` name one (`setup.set_environment`).
"""

from __future__ import annotations

import jittor as jt
import numpy as np

from diptych.errors import UserError
from diptych.ranks import Ranks, buckets
from diptych.types import Array

BUCKET = 2**23  # float32 elements in one message: 32 MiB


def join(ranks: Ranks, device: str) -> None:
    """Check that Jittor's import has connected this process with the other ranks.

    Raises:
        UserError: MPI counts other ranks than the launcher does.
    """
    if not ranks.alone and (jt.rank, jt.world_size) != (ranks.rank, ranks.world):
        raise UserError(
            f"{ranks.launcher} says {ranks}, and Jittor's MPI says rank {jt.rank} of "
            f"{jt.world_size}; start several Jittor processes with OpenMPI's mpirun, with mpicc "
            f"installed"
        )


def all_sum(arrays: list[jt.Var], ranks: Ranks) -> list[jt.Var]:
    """The sum of each array over all ranks, the same bits on each; float32, in flat buckets."""
    groups = buckets([array.numel() for array in arrays], BUCKET)
    flats = [jt.concat([x.stop_grad().reshape(-1) for x in arrays[g]], dim=0) for g in groups]
    flats = [flat.mpi_all_reduce("add").stop_grad() for flat in flats]
    for flat in flats:
        flat.sync()  # a lazy graph might send the buckets in another order on another rank
    summed: list[jt.Var] = []
    for group, flat in zip(groups, flats, strict=True):
        start = 0
        for array in arrays[group]:
            summed.append(flat[start : start + array.numel()].reshape(array.shape))
            start += array.numel()
    return summed


def gather(values: Array, ranks: Ranks) -> Array:
    """Every rank's whole numbers, (world, n) int32, from this rank's (n,); in host memory."""
    table = np.zeros((ranks.world, len(values)), np.int32)
    table[ranks.rank] = values
    jt.sync_all()  # all sums before this one have been sent
    return jt.array(table).mpi_all_reduce("add").numpy()
