"""The case that a hint judges: a failing tensor, its layer, and both sides' arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diptych.align.ladder.judge import Reason
from diptych.align.ladder.trace import Rung
from diptych.types import Array

Hint = dict[str, Any]  # key of a text, and its numbers


@dataclass(frozen=True)
class Case:
    """A failing tensor and all that is known of its layer."""

    layer: str
    call: Mapping[str, Any]
    port_call: Mapping[str, Any]
    tensor: str
    rung: str
    truth: Rung
    port: Rung
    weights: Mapping[str, Array]
    about: Mapping[str, Any]
    subject: Mapping[str, Any]
    text: str = ""
    inputs: Array | None = None
    alone: bool = True  # False: code that leads to the layer, which is not seen, may be wrong too
    reason: Reason = ""

    def weight(self, name: str) -> Array | None:
        """A weight of the layer in float64."""
        base = self.layer.partition("#")[0]
        found = self.weights.get(f"{base}.{name}")
        return None if found is None else found.astype(np.float64)

    def given(self) -> Array | None:
        """The layer's first input, as it was run on; only if the tensor is its output."""
        own = self.rung != "operators" or self.tensor.endswith("/y")
        return self.inputs if own else None

    @property
    def training(self) -> bool:
        return self.rung == "operators" or "training" in self.tensor

    @property
    def kind(self) -> str:
        return str(self.call.get("kind", "")).lower()

    @property
    def settings(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.call.get("settings", {})
        return found
