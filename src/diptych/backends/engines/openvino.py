"""OpenVINO on the CPU; the precision is stated, as its default is bf16 on CPUs that have it.

A graph is compiled for the shapes of a call and kept for the next one with the same: with sizes
known in advance OpenVINO chooses better kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.backends.engines.backend import EngineBackend, Run, check, no_precision, threads
from diptych.machine.packages import require
from diptych.ranks import ALONE, Ranks
from diptych.types import Float32

KEPT = 2  # compiled graphs of one network: that of the usual batch, and of another


def make(
    device: str, precision: str = "fp32", deterministic: bool = False, ranks: Ranks = ALONE
) -> EngineBackend:
    """The engine `openvino`. Raises UserError if it is missing, or lacks what is asked for."""
    openvino = require("openvino", "openvino")
    check("openvino", device, ranks)
    core = openvino.Core()
    if precision == "tf32":
        raise no_precision("openvino", precision, "TF32 is a precision of GPUs")
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise no_precision("openvino", precision, "OpenVINO finds no bf16 in this CPU")
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
    }

    def compile(graph: bytes) -> Run:
        return _Compiled(core, graph, settings)

    version = openvino.__version__
    return EngineBackend("openvino", version, compile, precision, deterministic)


class _Compiled:
    """A graph with its compiled forms, by the shapes of the inputs."""

    def __init__(self, core: Any, graph: bytes, settings: dict[str, Any]) -> None:
        self.core, self.graph, self.settings = core, graph, settings
        self.forms: dict[tuple[tuple[int, ...], ...], Any] = {}

    def __call__(self, given: dict[str, Float32]) -> Float32:
        shapes = tuple(array.shape for array in given.values())
        form = self.forms.pop(shapes, None) or self._form(given)
        self.forms[shapes] = form  # the last used is the last
        while len(self.forms) > KEPT:
            del self.forms[next(iter(self.forms))]
        made: Float32 = np.array(form(given)["y"])
        return made

    def _form(self, given: dict[str, Float32]) -> Any:
        model = self.core.read_model(self.graph)
        model.reshape({name: list(array.shape) for name, array in given.items()})
        return self.core.compile_model(model, "CPU", self.settings)
