"""Training steps in micro-batches, in a backend's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends
from diptych.config.load import Config, load_config
from diptych.data import Dataset
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.ranks import Ranks
from diptych.runs import checkpoint
from diptych.training.batches import Batches
from diptych.training.loop import train

# 11 images in batches of 8: the second step has 3 rows.
SETTINGS = [
    "data.image_size=8", "data.channels=1", "model.ch=8", "model.norm_groups=4",
    "model.ch_mult=[1]", "model.num_res_blocks=1", "model.attn_resolutions=[]",
    "model.dropout=0.2", "train.batch_size=8", "train.grid_every=0",
]  # fmt: skip


def settings(*changes: str) -> Config:
    """A network as small as they come, with dropout."""
    return load_config("tiny", [*SETTINGS, *changes])


def images() -> Any:
    """11 grey images."""
    return np.random.default_rng(0).integers(0, 256, (11, 1, 8, 8), np.uint8)


def steps(name: str, config: Config, world: int = 1) -> list[tuple[float, Any, list[int]]]:
    """Loss, gradients and the sizes of the network's calls of the first two steps, each before any
    update; the sums over `world` ranks."""
    plan = make_plan(config)
    backend = backends.load(name, "cpu")
    learner: Any = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    loss, sizes = learner.loss, []
    learner.loss = lambda batch: (sizes.append(len(batch.x0)), loss(batch))[1]
    batches, found = Batches(config, plan, images()), []
    for step in (1, 2):
        sizes.clear()
        parts = [batches.batch(step, Ranks(rank, world)) for rank in range(world)]
        rows = [learner.gradients(part) for part in parts if len(part.x0)]
        sums = {name: sum(row[1][name] for row in rows) for name in rows[0][1]}
        found.append((sum(row[0] for row in rows), sums, list(sizes)))
    return found


def peak(config: Config) -> int:
    """The most bytes of activations that PyTorch keeps for the backward pass of a step."""
    import torch

    live, most = 0, 0

    class Kept:
        def __init__(self, array: Any) -> None:
            nonlocal live, most
            self.array = array
            live += array.numel() * array.element_size()
            most = max(most, live)

        def __del__(self) -> None:
            nonlocal live
            live -= self.array.numel() * self.array.element_size()

    plan = make_plan(config)
    backend = backends.load("torch", "cpu")
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    batch = Batches(config, plan, np.repeat(images(), 8, axis=0)).batch(1)
    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.array):
        learner.step(batch, 1e-4)
    return most


def trained(
    name: str, config: Config, run: Path, stops: list[int], begun: bool = False
) -> dict[str, str]:
    """Train, or go on with a run that has begun, stopping at these steps and resuming; the hashes
    of the last state."""
    data = Dataset.from_arrays(images().transpose(0, 2, 3, 1))
    for step in stops:
        now = config.model_copy(update={"train": config.train.model_copy(update={"steps": step})})
        train(
            now,
            run,
            name,
            device="cpu",
            resume=begun or step != stops[0],
            progress=False,
            dataset=data,
        )
    state = checkpoint.load_state(checkpoint.latest(run), make_plan(config), now)
    return {g: checkpoint.weights_sha256(getattr(state, g)) for g in checkpoint.GROUPS}
