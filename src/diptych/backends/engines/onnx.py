"""ONNX Runtime on the CPU, in float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from diptych.backends.engines.backend import EngineBackend, Run, check, no_precision, threads
from diptych.machine.packages import require
from diptych.ranks import ALONE, Ranks
from diptych.types import Float32


def make(
    device: str, precision: str = "fp32", deterministic: bool = False, ranks: Ranks = ALONE
) -> EngineBackend:
    """The engine `onnx`. Raises UserError if it is missing, or lacks what is asked for."""
    onnxruntime = require("onnxruntime", "onnx")
    check("onnx", device, ranks)
    if precision != "fp32":
        raise no_precision("onnx", precision, "ONNX Runtime computes in float32 on a CPU")

    def compile(graph: bytes) -> Run:
        return _session(onnxruntime, graph, deterministic)

    return EngineBackend("onnx", onnxruntime.__version__, compile, precision, deterministic)


def _session(runtime: Any, graph: bytes, deterministic: bool) -> Run:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = deterministic
    # Threads that spin between operators would take the cores from the loop's own work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(given: dict[str, Float32]) -> Float32:
        made: Float32 = np.asarray(session.run(["y"], given)[0])
        return made

    return run
