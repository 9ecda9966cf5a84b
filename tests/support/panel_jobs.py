"""Jobs of the tests as importable functions, which run in a backend's own process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from diptych import backends, rng
from diptych.config.load import Config, load_config
from diptych.data import load_dataset
from diptych.errors import StopTraining
from diptych.generate.samples import SampleRequest, sample_to
from diptych.model import Model
from diptych.network.embedding import time_embedding
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.callbacks import Callback
from diptych.training.loop import Training, train
from diptych.weights.find import Source

# A network with every kind of block, small enough to run often.
SMALL = [
    "data.image_size=14",
    "model.ch=32",
    "model.ch_mult=[1, 2]",
    "model.num_res_blocks=1",
    "model.attn_resolutions=[7]",
    "train.batch_size=8",
]


# A quarter of its width, for tests of files and signals: each training ends with a grid of samples.
NARROW = ["model.ch=8", "model.norm_groups=4"]


def small(*changes: str) -> Config:
    """The `tiny` preset with a small batch and further changes."""
    return load_config("tiny", [*SMALL, *changes])


def make(name: str, config: Config, seed: int = 0) -> Model:
    """A model with fresh weights."""
    weights = initial_weights(make_plan(config), seed)
    return Model(Source(Path("fresh"), config, weights, "raw"), backends.load(name, "cpu"))


def forward(name: str, config: Config, x: Any, t: Any, seed: int = 0) -> Any:
    """Predicted noise of a fresh model."""
    return make(name, config, seed).predict(x, t)


def batches(config: Config) -> Batches:
    """The batches of a config on the packaged images."""
    images = load_dataset("mnist-10k", image_size=config.data.image_size).images
    return Batches(config, make_plan(config), images)


def losses(name: str, config: Config, steps: int, predict_between: bool = False) -> dict[str, Any]:
    """Losses and gradient norms of the first steps, and the learner's state after them."""
    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    source, rows = batches(config), []
    for step in range(1, steps + 1):
        loss, norm = learner.step(source.batch(step), config.train.lr)
        rows.append((backend.scalar(loss), backend.scalar(norm)))
        if predict_between:
            network = backend.network(plan, learner.state().ema)
            x = backend.array(source.batch(step).x0)
            backend.predict(network, x, backend.array(time_embedding([5], plan.ch)))
    return {"rows": np.array(rows), "state": learner.state()}


def doubled(name: str, x: Any, weight: Any, bias: Any) -> list[Any]:
    """Output and three gradients of a `doubled` convolution, and of doubling and convolving."""
    backend = backends.load(name, "cpu")
    panel = importlib.import_module(f"diptych.backends.{name}.layers")
    framework = importlib.import_module(name)
    found = []
    for at_once in (True, False):
        conv = panel.Conv2d(weight.shape[1], weight.shape[0], 3)
        arrays = importlib.import_module(f"diptych.backends.{name}.arrays")
        arrays.assign(conv.weight, weight)
        arrays.assign(conv.bias, bias)
        image = framework.tensor(x, requires_grad=True) if name == "torch" else framework.array(x)
        y = conv(image, True) if at_once else conv(panel.upsample(image))
        wanted = [image, conv.weight, conv.bias]
        loss = (y * y).sum()
        grad = framework.autograd.grad if name == "torch" else framework.grad
        found.append([backend.numpy(v) for v in (y, *grad(loss, wanted))])
    return found


def gradients(name: str, config: Config) -> Any:
    """Loss and gradients of the first batch at fresh weights."""
    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    return learner.gradients(batches(config).batch(1))


def run(name: str, config: Config, folder: Path, resume: bool = False) -> None:
    """`diptych train` without the command line."""
    train(config, folder, name, device="cpu", resume=resume, progress=False)


def run_stopped(name: str, config: Config, folder: Path, at: int) -> int:
    """A training that a callback stops in `stepped`; its last step."""

    class Enough(Callback):
        def stepped(self, learner: Any, batch: Any) -> None:
            if batch.step == at:
                raise StopTraining

    found = train(config, folder, name, device="cpu", progress=False, callbacks=[Enough()])
    return found.step


def run_without_grid(name: str, config: Config, folder: Path) -> None:
    """The same without the grid at the end, which for a wide network takes most of the time."""
    with mock.patch.object(Training, "draw_grid", lambda self, step: None):
        run(name, config, folder)


def draw(name: str, config: Config, num: int, **options: Any) -> Any:
    """Images of a fresh model."""
    return make(name, config).sample(num, **options)


def draw_from_seed(name: str, config: Config, weights_seed: int, num: int, **options: Any) -> Any:
    """Floats (N, C, H, W) of a model with weights of another seed."""
    return make(name, config, weights_seed).sample(num, as_float=True, **options)


def draw_to(
    name: str, config: Config, out: Path, fail_at: int | None = None, **request: Any
) -> Any:
    """Write images of a fresh model to a folder; `fail_at` stops in that batch."""
    model = make(name, config)
    asked = SampleRequest(make_sampler("ddim", 5, 1.0), **request)
    if fail_at is not None:
        whole, count = model.engine.draw, iter(range(1000))

        def broken(*args: Any, **named: Any) -> Any:
            if next(count) == fail_at:
                raise KeyboardInterrupt("planted")
            return whole(*args, **named)

        object.__setattr__(model.engine, "draw", broken)
    try:
        return sample_to(model, asked, out, resume=True, npz=True, progress=False)
    except KeyboardInterrupt:
        return None


def live_work(name: str, config: Config, steps: int) -> list[tuple[float, int]]:
    """Resident megabytes and live lazy variables (Jittor's count) after each step."""
    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    source, found, waiting = batches(config), [], []
    for step in range(1, steps + 1):
        waiting.append(learner.step(source.batch(step), config.train.lr))
        waiting = waiting[-20:]  # like the journal: losses wait to be read
        backend.synchronize()
        found.append((backend.memory_mb(), _live(name)))
    return found


def _live(name: str) -> int:
    if name == "torch":
        return 0
    import jittor

    return int(jittor.liveness_info()["lived_vars"])


def noise_images(config: Config, count: int, seed: int = 5) -> Any:
    """Images of pure noise for the config's network."""
    return rng.normal(seed, "initial_noise", (count, *config.data.shape))


def save_official(config: Config, seed: int, path: Path) -> None:
    """Save fresh weights like the official code: a plain state dict (PyTorch's process)."""
    import torch

    weights = initial_weights(make_plan(config), seed)
    torch.save({name: torch.from_numpy(array) for name, array in weights.items()}, path)


def predict_file(name: str, path: Path, config: Path, x: Any, t: Any) -> Any:
    """Predict with an official checkpoint and its yml, as a user would."""
    import diptych

    return diptych.load(path, backend=name, config=config, device="cpu").predict(x, t)


def plant_all(name: str) -> list[str]:
    """Plant every fault of the ladder, one at a time, and take it out again."""
    from diptych.align.faults.mutations import MUTATIONS, planted
    from diptych.align.process.panels import Panel

    for fault in MUTATIONS:
        with planted(fault, Panel(name, "cpu")):
            pass
    return list(MUTATIONS)
