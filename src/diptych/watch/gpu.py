"""What NVML tells of one GPU, if `nvidia-ml-py` (or `pynvml`) and a driver are there."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

Read = Callable[[], dict[str, float]]


def reader(device: str) -> Read | None:
    """A function that reads the GPU of `device` (`cuda`, `cuda:1`); None where NVML is not."""
    if not device.startswith("cuda"):
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(physical_index(device))
    except Exception:  # no package, no driver, no such GPU: the run does not depend on it
        return None

    def read() -> dict[str, float]:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        found = {
            "util_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            "memory_mb": memory.used / 2**20,
            "memory_total_mb": memory.total / 2**20,
        }
        for key, ask in (
            ("power_w", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            ("temperature_c", lambda: float(nvml.nvmlDeviceGetTemperature(handle, 0))),
        ):
            try:
                found[key] = ask()
            except nvml.NVMLError:  # some cards do not tell
                continue
        return found

    return read


def physical_index(device: str) -> int:
    """NVML counts all GPUs; the frameworks count those that CUDA_VISIBLE_DEVICES leaves."""
    index = int(device.partition(":")[2] or 0)
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    if index < len(visible) and visible[index].isdigit():
        return int(visible[index])
    return index
