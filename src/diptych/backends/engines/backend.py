"""A backend that only predicts: the network runs in an engine, all else is NumPy.

Images are float32 arrays of the host, so noise, keyed or not, is NumPy's, and has the panels' bits.
An engine gets the network as the graph of `diptych.network.onnx_graph`, made from plan and weights.
It trains nothing and has no feature networks: both are refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import psutil

from diptych import rng
from diptych.config.load import TrainConfig
from diptych.errors import UserError
from diptych.machine.processor import asked_threads, cores
from diptych.network.onnx_graph import engine_model, initializers
from diptych.network.own import AnyPlan, OwnPlan
from diptych.network.parameters import parameter_table
from diptych.network.plan import Plan
from diptych.ranks import ALONE, Ranks
from diptych.types import Array, Float32, Weights

Run = Callable[[dict[str, Float32]], Float32]
"""Computes y from the graph's inputs by name; y is the caller's own."""


@dataclass(frozen=True)
class Loaded:
    """A network in an engine, and the graph that it was made from, an onnx.ModelProto."""

    graph: Any
    plan: Plan
    run: Run


class EngineBackend:
    """See `diptych.backends.protocol.Backend`; `compile` makes an engine's network of a graph."""

    def __init__(
        self,
        name: str,
        version: str,
        compile: Callable[[bytes], Run],
        precision: str,
        deterministic: bool,
    ) -> None:
        self.name, self.version, self.compile = name, version, compile
        self.device = "cpu"
        self.precision, self.deterministic = precision, deterministic
        self.ranks = ALONE

    def array(self, values: Array) -> Array:
        return np.ascontiguousarray(values)

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> Float32:
        return rng.normal_per_image(seed, purpose, images, shape, step, "keyed")

    def numpy(self, values: Array) -> Array:
        return np.array(values, order="C")

    def scalar(self, value: Any) -> float:
        return float(value)

    def network(self, plan: AnyPlan, weights: Weights | None) -> Loaded:
        if isinstance(plan, OwnPlan) or weights is None:
            raise UserError(
                f"backend '{self.name}' has no way to run a network of one's own; use the backend "
                f"of its framework, or export it there and compare with diptych align port"
            )
        graph = engine_model(plan, weights)
        return Loaded(graph, plan, self.compile(graph.SerializeToString()))

    def weights(self, network: Loaded) -> Weights:
        held = initializers(network.graph)
        return {name: held[name] for name in parameter_table(network.plan)}

    def predict(
        self, network: Any, x: Float32, embedding: Float32, classes: Float32 | None = None
    ) -> Float32:
        if not isinstance(network, Loaded):  # a function of arrays
            made: Float32 = network(x, embedding, None, classes)
            return made
        given = {"x": x, "embedding": embedding}
        return network.run(given if classes is None else {**given, "classes": classes})

    def twice(self, x: Array) -> Array:
        return np.concatenate([x, x])

    def inner_products(self, rows: Float32, others: Float32) -> Float32:
        made: Float32 = rows @ others.T
        return made

    def clip(self, x: Float32) -> Float32:
        return x.clip(-1, 1)

    def submit(self, x: Array) -> None:
        """Do nothing: engines compute at once."""

    def synchronize(self) -> None:
        """Do nothing: engines compute at once."""

    def memory_mb(self) -> float:
        return float(psutil.Process().memory_info().rss / 2**20)

    def free_memory(self) -> int | None:
        return None

    def counters(self) -> dict[str, float]:
        return {}

    def describe(self) -> dict[str, Any]:
        return {
            "backend": self.name,
            "device": self.device,
            "precision": self.precision,
            "deterministic": self.deterministic,
            "device_name": "cpu",
            "framework_version": self.version,
            "threads": threads(),
            "world": 1,
        }

    def learner(
        self, plan: AnyPlan, weights: Weights | None, train: TrainConfig, seed: int
    ) -> NoReturn:
        raise UserError(f"backend '{self.name}' only predicts; train with torch or jittor")

    def feature_network(self, name: str, arrays: Weights) -> NoReturn:
        raise UserError(f"backend '{self.name}' has no feature networks; use torch or jittor")

    def gather(self, values: Array) -> NoReturn:
        raise UserError(f"backend '{self.name}' runs in one process; share work with --part K/N")


def threads() -> int:
    """The threads that an engine gets: OMP_NUM_THREADS, as for the panels, else a core each."""
    return asked_threads() or min(psutil.cpu_count(logical=False) or 1, cores())


def check(name: str, device: str, ranks: Ranks) -> None:
    """Refuse a device and ranks that engines do not have."""
    if device not in ("auto", "cpu"):
        raise UserError(f"device '{device}': backend '{name}' runs on the CPU; use --device cpu")
    if not ranks.alone:
        raise UserError(f"backend '{name}' runs in one process; share work with --part K/N")


def no_precision(name: str, precision: str, why: str) -> UserError:
    """The refusal of a precision."""
    return UserError(f"precision '{precision}': {why}; use --precision fp32, or another backend")
