"""Training steps by PyTorch's compiler, in the panel's own process."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

import numpy as np

from accumulate_jobs import images, settings
from diptych import backends
from diptych.network.own import OwnPlan
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.training.batches import Batches

SETTINGS = ("model.ch_mult=[1,2]", "model.attn_resolutions=[4]", "train.noise=keyed")


def steps(compiled: bool) -> dict[str, Any]:
    """Losses and gradient norms of four steps of 8 and 3 images, and the graphs compiled.

    The graphs and their derivatives are made, but run by PyTorch's own operators: writing kernels
    for them takes minutes.
    """
    from torch import nn
    from torch._dynamo.utils import counters

    counters.clear()
    whole = nn.Module.compile
    nn.Module.compile = partialmethod(whole, backend="aot_eager")  # type: ignore[method-assign]
    try:
        return _steps(compiled, counters)
    finally:
        nn.Module.compile = whole  # type: ignore[method-assign]


def _steps(compiled: bool, counters: Any) -> dict[str, Any]:
    config = settings(*SETTINGS, f"train.compile={str(compiled).lower()}")
    plan = make_plan(config)
    learner = backends.load("torch", "cpu").learner(
        plan, initial_weights(plan, 0), config.train, config.seed
    )
    batches, found = Batches(config, plan, images()), []
    for step in range(1, 5):
        loss, norm = learner.step(batches.batch(step), 1e-4)
        found.append([float(loss), float(norm)])
    names = sorted(learner.state().raw)
    cuts = sum(counters["graph_break"].values())
    return {"found": np.array(found), "names": names, "cuts": cuts,
            "graphs": counters["stats"]["unique_graphs"]}  # fmt: skip


def own(compiled: bool) -> list[float]:
    """Losses of two steps of a user's own network, one of whose branches reads a value."""
    import torch
    from torch import nn

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if float(x.sum()) > 0 else self.conv(x) * 2

    config = settings(f"train.compile={str(compiled).lower()}")
    plan = OwnPlan(Module, 1, 8, 8, seed=0)
    learner = backends.load("torch", "cpu").learner(plan, None, config.train, 0)
    batches = Batches(config, plan, images())
    return [float(learner.step(batches.batch(step), 1e-4)[0]) for step in (1, 2)]


def folds_before_the_first_call() -> list[str]:
    """The devices for which compiling a network on another device than the CPU makes its folds."""
    import torch

    from diptych.backends.torch import compiler, layers
    from diptych.backends.torch.arrays import build

    plan = make_plan(settings(*SETTINGS))
    network = build(plan, initial_weights(plan, 0), "cpu").to("meta")
    layers._FOLDS.clear()
    compiler.compile_network(network)
    made = [str(device) for kind, device in layers._FOLDS if kind == torch.float32]
    layers._FOLDS.clear()
    return made


def without_compiler() -> None:
    """Make a learner where no C++ compiler is found."""
    from torch._inductor import config as inductor

    before, inductor.cpp.cxx = inductor.cpp.cxx, ("a-compiler-that-is-not-there",)
    try:
        steps(True)
    finally:
        inductor.cpp.cxx = before
