"""The place of a training: all that determines the last bits of its numbers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from diptych.machine.processor import instruction_sets, openmp_threads, processor_name

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
    """The processor's name, and a hash of its instruction sets if they are known."""
    known = instruction_sets()
    hashed = hashlib.sha256(" ".join(known).encode()).hexdigest()[:8]
    return f"{processor_name()} {hashed}" if known else processor_name()


def device_in_use() -> str:
    """`cuda` if a loaded framework computes on a GPU, else `cpu`."""
    torch: Any = sys.modules.get("torch")
    jittor: Any = sys.modules.get("jittor")
    if torch is not None and torch.cuda.is_initialized():
        return "cuda"
    return "cuda" if jittor is not None and jittor.flags.use_cuda else "cpu"


def gpu(device: str) -> str:
    """The model of a GPU; of `cuda`, where it is not known which one is used, of all there are."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        chosen = [device] if ":" in device else range(torch.cuda.device_count())
        names = [torch.cuda.get_device_name(each) for each in chosen]
    else:  # Jittor does not tell
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        try:
            names = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=True
            ).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            names = []
    return " and ".join(sorted({name.strip() for name in names})) or "unknown"


def threads() -> int:
    """Threads of the process's arithmetic: PyTorch's own number, else OMP_NUM_THREADS or cores."""
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return openmp_threads()


def place(device: str | None = None) -> dict[str, Any]:
    """The place of this process: processor, loaded frameworks with versions, threads, device, a
    GPU's model, and variables of the environment that choose kernels.

    Args:
        device: None: the one that the loaded frameworks use.
    """
    device = device or device_in_use()
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
    if device != "cpu":
        found["gpu"] = gpu(device)
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
