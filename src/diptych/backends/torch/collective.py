"""Sums over ranks, PyTorch backend; its mirror is `diptych.backends.jittor.collective`.

PyTorch's process groups do the work: gloo between CPUs, NCCL between GPUs.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from diptych.errors import MachineError, UserError
from diptych.ranks import Ranks, buckets
from diptych.types import Array

BUCKET = 2**23  # float32 elements in one message: 32 MiB


def join(ranks: Ranks, device: str) -> None:
    """Connect this process with the other ranks, once; waits until all are there.

    Raises:
        UserError: the launcher did not say where rank 0 listens.
        MachineError: rank 0 cannot be reached.
    """
    if ranks.alone or dist.is_initialized():
        return
    for key in ("MASTER_ADDR", "MASTER_PORT"):
        if key not in os.environ:
            raise UserError(
                f"{ranks}, started by {ranks.launcher}: {key} is not set, so the ranks cannot find "
                f"each other; start with torchrun, or export MASTER_ADDR=HOST MASTER_PORT=29500, "
                f"HOST being the machine of rank 0"
            )
    engine = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    with lost(ranks):
        dist.init_process_group(engine, rank=ranks.rank, world_size=ranks.world)
    atexit.register(dist.destroy_process_group)


@contextmanager
def lost(ranks: Ranks) -> Iterator[None]:
    """Turn the engine's error inside, which means that a rank is gone, into one line."""
    try:
        yield
    except RuntimeError as error:
        raise MachineError(
            f"{ranks}: another rank has ended, or cannot be reached "
            f"({str(error).splitlines()[0][:160]}); the end of its rank-N.log, or rank "
            f"0's output, may say why; resume with --resume, from the last checkpoint"
        ) from error


def all_sum(arrays: list[torch.Tensor], ranks: Ranks) -> list[torch.Tensor]:
    """The sum of each array over all ranks, the same bits on each; float32, in flat buckets."""
    groups = buckets([array.numel() for array in arrays], BUCKET)
    flats = [torch.concat([x.detach().reshape(-1) for x in arrays[g]], dim=0) for g in groups]
    with lost(ranks):
        for work in [dist.all_reduce(flat, async_op=True) for flat in flats]:
            work.wait()
    summed: list[torch.Tensor] = []
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
    with lost(ranks):
        dist.all_reduce(torch.from_numpy(table))  # in place: one rank's row, and zeros
    return table
