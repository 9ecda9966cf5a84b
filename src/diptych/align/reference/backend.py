"""The float64 reference as a backend, with the methods that the rungs call.

Its learner follows the formula of `diptych.backends.torch.optim` in plain NumPy steps, one array at
a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from diptych.align.reference.network import UNet, round_products
from diptych.backends.protocol import Batch, State
from diptych.config.load import TrainConfig
from diptych.network.plan import Plan
from diptych.rng import normal_per_image
from diptych.types import Array, Arrays, Weights


def double(values: Array) -> torch.Tensor:
    """Convert a host array to a tensor; floats become float64."""
    array = np.ascontiguousarray(values)
    return torch.from_numpy(array.astype(np.float64) if array.dtype.kind == "f" else array)


class ReferenceBackend:
    """See `diptych.backends.protocol.Backend`; floats are float64."""

    name = "reference"
    device = "cpu"

    def __init__(self, precision: str = "fp32") -> None:
        self.precision = precision  # of products, see `round_products`
        round_products(precision)

    def array(self, values: Array) -> torch.Tensor:
        return double(values)

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> torch.Tensor:
        return double(normal_per_image(seed, purpose, images, shape, step, "keyed"))

    def numpy(self, values: torch.Tensor) -> Array:
        return np.array(values.detach().numpy(), order="C")

    def scalar(self, value: torch.Tensor) -> float:
        return float(value)

    def network(self, plan: Plan, weights: Weights) -> UNet:
        network = UNet(plan)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(double(weights[name]))
        return network

    def predict(
        self,
        network: UNet,
        x: torch.Tensor,
        embedding: torch.Tensor,
        classes: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with torch.no_grad():
            return network(x, embedding, None, classes)  # type: ignore[no-any-return]

    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(2, 1, 1, 1)

    def learner(self, plan: Plan, weights: Weights, train: TrainConfig, seed: int) -> Learner:
        return Learner(self.network(plan, weights), train, plan.objective)

    def clip(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(-1, 1)

    def submit(self, x: torch.Tensor) -> None:
        """Nothing waits."""

    def synchronize(self) -> None:
        """Nothing waits."""

    def free_memory(self) -> None:
        return None

    def memory_mb(self) -> float:
        return 0.0

    def describe(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "device": self.device,
            "precision": self.precision,
            "framework_version": torch.__version__,
        }


class Learner:
    """See `diptych.backends.protocol.Learner`."""

    def __init__(self, network: UNet, train: TrainConfig, objective: str = "eps") -> None:
        self.network, self.train, self.count = network, train, 0
        self.objective = objective
        self.raw = dict(network.named_parameters())
        self.groups: list[Arrays] = [
            {name: p.detach().numpy().copy() for name, p in self.raw.items()},
            {name: np.zeros(p.shape) for name, p in self.raw.items()},
            {name: np.zeros(p.shape) for name, p in self.raw.items()},
        ]

    def loss(self, batch: Batch) -> torch.Tensor:
        x0, eps = double(batch.x0), double(batch.eps)  # type: ignore[arg-type]
        alpha, sigma = double(batch.alpha), double(batch.sigma)
        masks = None if batch.masks is None else [double(mask) for mask in batch.masks]
        classes = None if batch.classes is None else double(batch.classes)
        wanted = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[self.objective]
        found = self.network(alpha * x0 + sigma * eps, double(batch.embedding), masks, classes)
        per_image = ((wanted - found) ** 2).flatten(1)
        each = per_image.mean(1) if self.train.loss == "mean" else per_image.sum(1)
        return torch.mean(each if batch.weight is None else double(batch.weight).flatten() * each)

    def gradients(self, batch: Batch) -> tuple[float, Arrays]:
        loss = self.loss(batch)
        found = torch.autograd.grad(loss, list(self.raw.values()))
        return float(loss), dict(zip(self.raw, (g.numpy() for g in found), strict=True))

    def step(self, batch: Batch, lr: float) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradients = self.gradients(batch)
        self.count += 1
        t = self.train
        params = {name: p.detach().numpy() for name, p in self.raw.items()}  # shares its memory
        ema, m, v = self.groups
        rate = t.ema_rate
        if t.ema_warmup:
            rate = min(rate, (1 + self.count) / (10 + self.count))
        norm = adam(
            params,
            gradients,
            m,
            v,
            ema,
            lr=lr,
            beta1=t.beta1,
            beta2=t.beta2,
            eps=t.eps,
            step=self.count,
            max_norm=t.grad_clip or math.inf,
            ema_rate=rate,
        )
        return torch.tensor(loss), torch.tensor(norm)

    def state(self) -> State:
        raw = {name: p.detach().numpy().copy() for name, p in self.raw.items()}
        copies = [{name: a.copy() for name, a in group.items()} for group in self.groups]
        return State(self.count, raw, *copies)

    def restore(self, state: State) -> None:
        raise NotImplementedError("the reference never resumes")


def adam(
    params: Arrays,
    grads: Arrays,
    m: Arrays,
    v: Arrays,
    ema: Arrays,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    max_norm: float,
    ema_rate: float,
) -> float:
    """Update all arrays in place in float64; return the norm before clipping.

    Source: `diptych.backends.torch.optim`.
    """
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in grads.values()))
    clip = min(1.0, max_norm / (norm + 1e-6))
    for name, p in params.items():
        g = grads[name] * clip
        m[name][...] = beta1 * m[name] + (1 - beta1) * g
        v[name][...] = beta2 * v[name] + (1 - beta2) * g * g
        m_hat, v_hat = m[name] / (1 - beta1**step), v[name] / (1 - beta2**step)
        p[...] -= lr * m_hat / (np.sqrt(v_hat) + eps)
        ema[name][...] = ema_rate * ema[name] + (1 - ema_rate) * p
    return norm
