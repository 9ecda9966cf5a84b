"""Many ranks of PyTorch as threads of one process: real learners, rows, buckets and sums.

Only the engine is a stand-in: a ring all-reduce in float32, as gloo and NCCL sum,

    chunk c of a message is summed from rank c + 1 on, in the order of ranks, around to rank c
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from diptych import backends
from diptych.config.load import Config, load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.ranks import Ranks
from diptych.training.batches import Batches
from rank_jobs import SETTINGS
from waiting import PATIENCE

IMAGES = 101
BATCH = 70  # steps of 70 and 31 rows: of 64 ranks, 33 have no row of the second


def settings() -> Config:
    """The small network with dropout, in larger batches."""
    return load_config("tiny", [*SETTINGS, f"train.batch_size={BATCH}"])


class Ring:
    """`torch.distributed` for ranks that are threads; see the module."""

    def __init__(self, world: int, deaf: int | None) -> None:
        self.world, self.deaf = world, deaf
        self.barrier = threading.Barrier(world, timeout=2 * PATIENCE)
        self.here = threading.local()
        self.flats: list[Any] = [None] * world
        self.result: Any = None
        self.messages = 0

    def all_reduce(self, flat: Any, async_op: bool = False) -> Ring:
        import torch

        self.flats[self.here.rank] = flat
        if self.barrier.wait() == 0:  # one of the threads
            self.messages += 1
            chunks = [torch.tensor_split(each, self.world) for each in self.flats]
            heard = [rank for rank in range(self.world) if rank != self.deaf]
            joined = []
            for c in range(self.world):
                order = sorted(heard, key=lambda rank: (rank - c - 1) % self.world)
                total = chunks[order[0]][c].clone()
                for rank in order[1:]:
                    total += chunks[rank][c]
                joined.append(total)
            self.result = torch.cat(joined)
        self.barrier.wait()
        flat.copy_(self.result)
        self.barrier.wait()
        return self

    def wait(self) -> None:
        """The sum is there already."""


def train(world: int, steps: int, bucket: int, deaf: int | None = None) -> dict[str, Any]:
    """Loss and norm of each step of every rank, (world, steps, 2), and what is worth knowing.

    Args:
        bucket: elements in one message.
        deaf: a rank whose gradients are left out of every sum: a planted fault.
    """
    import torch

    from diptych.backends.torch import collective

    config = settings()
    plan = make_plan(config)
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, 8, 8), np.uint8)
    backend: Any = backends.load("torch", "cpu")
    ring, before = Ring(world, deaf), (collective.dist, collective.BUCKET)
    found, rows = np.zeros((world, steps, 2)), np.zeros((world, steps), int)
    weights: list[bytes] = [b""] * world
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            ring.here.rank = rank
            ranks = Ranks(rank, world, rank, "test")
            batches = Batches(config, plan, images)
            learner = type(first)(plan, initial_weights(plan, 0), config.train, config.seed,
                                  backend.arithmetic, ranks)  # fmt: skip
            for step in range(1, steps + 1):
                batch = batches.batch(step, ranks)
                rows[rank, step - 1] = len(batch.x0)
                loss, norm = learner.step(batch, 1e-3)
                found[rank, step - 1] = float(loss), float(norm)
            state = learner.state()
            weights[rank] = b"".join(state.raw[name].tobytes() for name in sorted(state.raw))
        except BaseException as error:
            errors.append(error)
            ring.barrier.abort()

    first = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    collective.dist, collective.BUCKET = ring, bucket  # type: ignore[assignment]
    try:
        started = [threading.Thread(target=run, args=(rank,)) for rank in range(world)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()
    finally:
        collective.dist, collective.BUCKET = before
        torch.set_num_threads(threads)
    if errors:
        raise errors[0]
    return {
        "numbers": found, "rows": rows, "messages": ring.messages,
        "same_weights": len(set(weights)) == 1,
    }  # fmt: skip
