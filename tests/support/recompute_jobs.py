"""Training steps whose blocks compute their activations again, in a backend's own process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

import accumulate_jobs
import api_jobs
from diptych import backends
from diptych.config.load import Config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.training.batches import Batches
from diptych.training.loop import train
from diptych.types import Weights

# Every kind of block: wider and not, with attention and without, all with dropout. A step of 8 and
# one of 3 images.
SETTINGS = ("model.ch_mult=[1,2]", "model.attn_resolutions=[4]", "model.num_classes=3")
AGAIN = "train.checkpoint_activations=true"


def settings(*changes: str) -> Config:
    """A small network with every kind of block."""
    return accumulate_jobs.settings(*SETTINGS, *changes)


def learner(name: str, config: Config) -> Any:
    """A learner with fresh weights that are not zero anywhere, so that each gradient is seen."""
    plan = make_plan(config)
    backend = backends.load(name, "cpu", config.train.precision)
    draws = np.random.default_rng(1)
    weights = {
        key: (array + 0.05 * draws.standard_normal(array.shape)).astype(np.float32)
        for key, array in initial_weights(plan, 0).items()
    }
    return backend.learner(plan, weights, config.train, config.seed)


def batches(config: Config, times: int = 1) -> Batches:
    """The batches of 11 images, or of so many times 11."""
    images = np.repeat(accumulate_jobs.images(), times, axis=0)
    return Batches(config, make_plan(config), images, np.arange(len(images)) % 3)


def steps(name: str, config: Config, forgets: bool = False) -> tuple[list[float], Weights, Weights]:
    """Losses and norms of four steps, the gradients of the first batch, and the last weights.

    forgets: plant that the second run of a block lacks its dropout mask.
    """
    learning, source = learner(name, config), batches(config)
    if forgets:
        forget_masks(name, learning.network)
    gradients = learning.gradients(source.batch(1))[1]
    rows = [learning.step(source.batch(step), 1e-2) for step in range(1, 5)]
    scalar = backends.load(name, "cpu", config.train.precision).scalar
    return [scalar(x) for row in rows for x in row], gradients, learning.state().raw


def forget_masks(name: str, network: Any) -> None:
    """Make every second run of a residual block keep all its numbers."""
    framework = importlib.import_module(name)
    unet = importlib.import_module(f"diptych.backends.{name}.unet")

    def forgetful(run: Any) -> Any:
        calls = []

        def ran(x: Any, temb: Any, mask: Any) -> Any:
            calls.append(x.shape)
            return run(x, temb, mask if len(calls) % 2 else framework.ones_like(mask))

        return ran

    for block in network.modules():
        if isinstance(block, unet.ResnetBlock):
            block.branch.run = forgetful(block.branch.run)


def memory(name: str, configs: list[Config]) -> list[int]:
    """Bytes of each config's step of 64 images, in ascending order of what is expected.

    In PyTorch those that the graph keeps for the backward pass, without weights; in Jittor the most
    that all arrays had at once, which grows over the life of a process.
    """
    return [(_kept if name == "torch" else _most)(config) for config in configs]


def _kept(config: Config) -> int:
    import torch

    learning, batch = learner("torch", config), batches(config, 8).batch(1)
    weights = {array.data_ptr() for array in learning.raw.values()}
    kept: dict[int, int] = {}

    def pack(array: Any) -> Any:
        storage = array.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return array

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda array: array):
        loss = learning.loss(batch)
    assert loss.requires_grad
    return sum(size for place, size in kept.items() if place not in weights)


def _most(config: Config) -> int:
    learning, source = learner("jittor", config), batches(config, 8)
    backend = backends.load("jittor", "cpu")
    jt = importlib.import_module("jittor")
    with jt.flag_scope(profile_memory_enable=1):
        backend.scalar(learning.step(source.batch(1), 1e-3)[0])
        backend.synchronize()
        return int(jt.get_max_memory_info().split("[", 1)[0])


def train_own(name: str, folder: Path) -> None:
    """Train a network of one's own with the key."""
    changes = ("data.image_size=14", "model.num_classes=0", AGAIN)
    train(settings(*changes), folder, name, device="cpu", network=api_jobs.network(name))
