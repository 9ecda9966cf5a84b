"""Steps of PyTorch's learner through `Captured`, without a GPU: a graph that computes anew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

import accumulate_jobs as jobs
from diptych import backends
from diptych.config.load import Config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.training.batches import Batches
from diptych.types import Weights

STEPS = 10  # five epochs of two batches, the second of three images


def free_memory() -> int | None:
    """`free_memory` of a backend on a GPU that holds segments of its own, of a graph, and of
    another GPU."""
    import torch

    backend = backends.load("torch", "cpu")
    backend.on_gpu = True  # type: ignore[attr-defined]
    segments = [
        {"device": 1, "segment_pool_id": (0, 0), "total_size": 100, "allocated_size": 30},
        {"device": 1, "segment_pool_id": (0, 1), "total_size": 1000, "allocated_size": 0},
        {"device": 0, "segment_pool_id": (0, 0), "total_size": 10_000, "allocated_size": 0},
    ]
    with (
        mock.patch.object(torch.cuda, "current_device", lambda: 1),
        mock.patch.object(torch.cuda, "memory_snapshot", lambda: segments),
        mock.patch.object(torch.cuda, "mem_get_info", lambda: (5, 10**6)),
    ):
        return backend.free_memory()


def steps(
    config: Config, captured: bool, kept: int | None = None
) -> tuple[list[float], Weights, dict[str, int]]:
    """Losses, read after the last step; the weights; and the calls of each kind.

    kept: outputs that stay, in place of the learner's own number.
    """
    from diptych.backends.torch import captured as module

    calls = {"aside": 0, "captured": 0, "replayed": 0}

    class Rehearsed(module.Captured):
        """Its inputs and outputs stay in place, as a graph's do."""

        def _aside(self, inputs: Any, number: int) -> Any:
            calls["aside"] += 1
            return self.run(inputs, number)

        def _capture(self, shape: Any, inputs: Any, number: int) -> None:
            calls["captured"] += 1
            shape.inputs = [None if x is None else x.clone() for x in inputs]
            shape.outputs = [x.detach().clone() for x in self.run(shape.inputs, number)]

            def replay() -> None:
                calls["replayed"] += 1
                for place, x in zip(shape.outputs, self.run(shape.inputs, number), strict=True):
                    place.copy_(x)

            shape.graph = SimpleNamespace(replay=replay)

    plan = make_plan(config)
    backend = backends.load("torch", "cpu")
    learner: Any = backend.learner(plan, initial_weights(plan, 0), config.train, 0)
    if captured:
        own = 1 if config.train.accumulate == 1 else None
        learner.captured = Rehearsed(learner.replayed, own if kept is None else kept)
    batches = Batches(config, plan, jobs.images(), np.arange(11) % 3)
    losses = [learner.step(batches.batch(step), 1e-3)[0] for step in range(1, STEPS + 1)]
    return [backend.scalar(loss) for loss in losses], learner.state().raw, calls
