"""The sampling loop on NumPy arrays: a backend, a network and an engine without a framework."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from diptych.backends.protocol import Backend
from diptych.config.load import load_config
from diptych.diffusion.schedule import make_schedule
from diptych.network.plan import make_plan
from diptych.rng import normal_per_image
from diptych.sampling.engine import Engine
from diptych.types import Float32

CONFIG = load_config("tiny")


class NumpyBackend:
    """Just what the loop asks of a panel; `network` is a function of (x, embedding)."""

    name, device, precision = "numpy", "cpu", "fp32"

    def __init__(self) -> None:
        self.calls = 0
        self.submitted = 0

    def array(self, values: Float32) -> Float32:
        assert values.dtype == np.float32
        return values.copy()

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> Float32:
        return normal_per_image(seed, purpose, images, shape, step, "keyed")

    def numpy(self, values: Float32) -> Float32:
        return values

    def predict(self, network: Any, x: Float32, embedding: Float32) -> Float32:
        assert x.dtype == np.float32 and embedding.shape == (1, CONFIG.model.ch)
        self.calls += 1
        return cast(Float32, network(x, embedding))

    def clip(self, x: Float32) -> Float32:
        return x.clip(-1, 1)

    def free_memory(self) -> None:
        """No device holds the images."""

    def submit(self, x: Float32) -> None:
        self.submitted += 1


def a_network(x: Float32, embedding: Float32) -> Float32:
    """Some smooth function of image and time, each row on its own."""
    out: Float32 = np.tanh(x) * embedding[0, 0] + np.float32(0.3) * embedding[0, 20]
    return out


def engine(network: Any = a_network) -> tuple[Engine, NumpyBackend]:
    backend = NumpyBackend()
    schedule = make_schedule(CONFIG.diffusion)
    return Engine(cast(Backend, backend), network, make_plan(CONFIG), schedule), backend
