"""Jobs of the tests of precision, which run in a backend's own process."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

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


def features_after_others() -> dict[str, Any]:
    """PyTorch's settings when features were computed, after others than float32's were set."""
    import torch

    from diptych.evaluation.features import open_extractor

    extractor = open_extractor("mnist", "torch", "cpu")
    rows, found = np.zeros((1, 2), np.float32), {}
    for name, call in (
        ("features", lambda: extractor(np.zeros((1, 1, 28, 28), np.float32))),
        ("products", lambda: extractor.products(rows)(rows)),
    ):
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        call()
        settings = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        found[name] = settings
    backends.load("torch", "cpu")
    return found


def dropped() -> tuple[Any, ...]:
    """Dropout of float32 and of bfloat16, values and gradients, and the types of the second."""
    import torch

    from diptych.backends.torch.layers import dropout

    torch.manual_seed(0)
    x, g = torch.randn(4, 8, 6, 6), torch.randn(4, 8, 6, 6)
    mask = (torch.rand(x.shape) < 0.9).to(torch.uint8)
    found: list[Any] = []
    for kind in (torch.float32, torch.bfloat16):
        leaf = x.to(kind, copy=True).requires_grad_()
        y = dropout(leaf, mask, 0.1)
        [back] = torch.autograd.grad(y, leaf, g.to(kind))
        found += [y.detach().float().numpy(), back.float().numpy()]
    kept = [mask.numpy() * each.numpy() / 0.9 for each in (x, g)]
    return found, kept, str(y.dtype)


def second_device() -> str:
    """The refusal of another device than the one that this process computes on."""
    from diptych.backends.jittor import backend
    from diptych.errors import UserError

    backends.load("jittor", "cpu")
    backend._chosen[:] = ["cuda"]
    try:
        backends.load("jittor", "cpu")
    except UserError as error:
        return str(error)
    finally:
        backend._chosen[:] = ["cpu"]
    return ""


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
