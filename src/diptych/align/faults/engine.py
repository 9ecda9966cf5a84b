"""Faults in the graph that engines run. See `mutations`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from diptych.backends.engines import backend
from diptych.network import onnx_graph
from diptych.types import Float32


def weight_changed(_: Any, patch: Any) -> None:
    original = patch.original(backend, "engine_model")

    def changed(plan: Any, weights: Mapping[str, Float32]) -> Any:
        name = "mid.block_1.conv1.weight"
        return original(plan, {**weights, name: weights[name] * np.float32(1.001)})

    patch.set(backend, "engine_model", changed)


def eps_fixed(_: Any, patch: Any) -> None:
    original = onnx_graph._Graph.norm

    def norm(self: Any, *given: Any, **named: Any) -> str:
        plan = self.plan
        self.plan = replace(plan, norm_eps=1e-6)
        try:
            return original(self, *given, **named)
        finally:
            self.plan = plan

    patch.set(onnx_graph._Graph, "norm", norm)


def padding_side(_: Any, patch: Any) -> None:
    original = onnx_graph._Graph.conv

    def conv(
        self: Any, name: str, x: str, stride: int = 1, pads: Any = (1, 1, 1, 1), out: str = ""
    ) -> str:
        pads = (1, 1, 0, 0) if pads == (0, 0, 1, 1) else pads
        return original(self, name, x, stride, pads, out)

    patch.set(onnx_graph._Graph, "conv", conv)


def class_ignored(_: Any, patch: Any) -> None:
    original = onnx_graph._Graph.time_embedding

    def time_embedding(self: Any, embedding: str, classes: str) -> str:
        return original(self, embedding, "")

    patch.set(onnx_graph._Graph, "time_embedding", time_embedding)


def guidance_halves(_: Any, patch: Any) -> None:
    patch.set(backend.EngineBackend, "twice", lambda self, x: np.concatenate([x, -x]))


ROWS = (
    ("engine weight", "weights", "one weight in the graph is 1.001 times its value",
     weight_changed),
    ("engine eps", "layers", "the graph's norms have eps 1e-6, whatever the plan says", eps_fixed),
    ("engine padding", "layers", "strided convolutions are padded above and to the left",
     padding_side),
    ("engine class", "solver", "the class is left out of the graph's time embedding",
     class_ignored),
    ("engine guidance", "solver", "the half of a guided batch without class sees other images",
     guidance_halves),
)  # fmt: skip
