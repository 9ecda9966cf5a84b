"""Jobs of the tests of precision, which run in a backend's own process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import panel_jobs
from diptych import backends
from diptych.config.load import Config
from diptych.generate.samples import SampleRequest, sample_to
from diptych.model import Model
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.sampling.sampler import make_sampler
from diptych.weights.find import Source


def load(name: str, precision: str) -> None:
    """Load a backend with a precision."""
    backends.load(name, "cpu", precision)


def settings(precision: str) -> dict[str, Any]:
    """PyTorch's settings after loading, and inside a network's call, from others before."""
    import torch

    def found() -> dict[str, Any]:
        cudnn = torch.backends.cudnn
        return {
            "matmul": torch.get_float32_matmul_precision(), "cudnn_tf32": cudnn.allow_tf32,
            "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic,
            "autocast": torch.is_autocast_enabled("cpu"),
        }  # fmt: skip

    def spoil() -> None:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.deterministic = False

    seen: list[dict[str, Any]] = []

    def network(x: Any, *_: Any) -> Any:
        seen.append(found())
        return x

    spoil()
    backend = backends.load("torch", "cpu", precision, True)
    loaded = found()
    spoil()
    backend.predict(network, torch.zeros(1), None)
    backends.load("torch", "cpu")
    facts = backend.describe()
    described = [facts["precision"], facts["deterministic"]]
    return {"loaded": loaded, "called": seen[0], "described": described}


def training(config: Config) -> dict[str, Any]:
    """Types inside the network and outside, and the loss, of a training step."""
    backend, plan = backends.load("torch", "cpu", config.train.precision), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    layers: Any = importlib.import_module("diptych.backends.torch.layers")
    batch, inside = panel_jobs.batches(config).batch(1), set()
    original = layers.Conv2d.forward

    def forward(self: Any, *given: Any) -> Any:
        y = original(self, *given)
        inside.add(str(y.dtype))
        return y

    layers.Conv2d.forward = forward
    try:
        loss, gradients = learner.gradients(batch)
        learner.step(batch, 1e-3)
    finally:
        layers.Conv2d.forward = original
    state = learner.state()
    arrays = [*gradients.values(), *state.raw.values(), *state.ema.values(), *state.adam_m.values()]
    backends.load("torch", "cpu")
    return {
        "inside": sorted(inside),
        "outside": sorted({str(a.dtype) for a in arrays}),
        "loss": loss,
    }


def sample(config: Config, out: Path, precision: str, noise: str) -> None:
    """Draw two samples of a fresh model into a folder, or resume it."""
    weights = initial_weights(make_plan(config), 0)
    backend = backends.load("torch", "cpu", precision)
    model = Model(Source(Path("fresh"), config, weights, "raw"), backend)
    sampler = make_sampler("ddim", 2, noise=noise)
    sample_to(model, SampleRequest(sampler, 2, batch=2), out, resume=True, progress=False)
