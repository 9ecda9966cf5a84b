"""The place of a training: all that determines the last bits of its numbers."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FRAMEWORKS = ("torch", "jittor", "tensorflow", "jax", "mindspore", "paddle", "numpy")

# Variables that choose other kernels on the same processor.
CHOOSING = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
)


def processor() -> str:
    """The processor's name and a hash of its instruction sets, as reported by the kernel."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    pairs = (line.partition(":") for line in reversed(lines))
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    flags = hashlib.sha256(" ".join(sorted(facts.get("flags", "").split())).encode())
    return f"{facts.get('model name', '')} {flags.hexdigest()[:8]}"


def threads() -> int:
    """Threads of the process's arithmetic: PyTorch's own number, else OMP_NUM_THREADS or cores."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else os.cpu_count() or 1


def place(device: str = "cpu") -> dict[str, Any]:
    """The place of this process: processor, loaded frameworks with versions, threads, device, and
    variables of the environment that choose kernels."""
    loaded = {}
    for name in FRAMEWORKS:
        if name in sys.modules:
            try:
                loaded[name] = version(name)
            except PackageNotFoundError:
                loaded[name] = str(getattr(sys.modules[name], "__version__", "unknown"))
    if len(loaded) > 1:  # NumPy alone only counts where it is the framework
        loaded.pop("numpy", None)
    found = {"processor": processor(), "frameworks": loaded, "threads": threads(), "device": device}
    chosen = {name: os.environ[name] for name in CHOOSING if name in os.environ}
    return {**found, "environment": chosen} if chosen else found


def differences(recorded: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """The facts in which two places differ, as `threads 2, here 1`; empty if they are the same."""
    keys = dict.fromkeys((*recorded, *here))
    return [
        f"{key} {_told(recorded.get(key))}, here {_told(here.get(key))}"
        for key in keys
        if recorded.get(key) != here.get(key)
    ]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return " and ".join(f"{name} {number}" for name, number in value.items()) or "none"
    return str(value)
