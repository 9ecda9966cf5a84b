"""NVML readings of one GPU, if `nvidia-ml-py` (or `pynvml`) and a driver are installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

Read = Callable[[], dict[str, float]]


def reader(device: str) -> Read | None:
    """A function that reads the GPU of `device` (`cuda`, `cuda:1`); None without NVML.

    Also None if the GPU cannot be identified: numbers of the wrong one are worse than none.
    """
    if not device.startswith("cuda"):
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handle = find(nvml, device)
    except Exception:  # no package, driver or such GPU: the run does not depend on it
        return None
    return None if handle is None else lambda: read(nvml, handle)


def read(nvml: Any, handle: Any) -> dict[str, float]:
    """All readings of the card now; unsupported ones are absent (a MIG slice has no use)."""
    found: dict[str, float] = {}

    def memory() -> dict[str, float]:
        told = nvml.nvmlDeviceGetMemoryInfo(handle)
        return {"memory_mb": told.used / 2**20, "memory_total_mb": told.total / 2**20}

    for ask in (
        lambda: {"util_percent": float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)},
        memory,
        lambda: {"power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000},
        lambda: {"temperature_c": float(nvml.nvmlDeviceGetTemperature(handle, 0))},
    ):
        try:
            found |= ask()
        except nvml.NVMLError:
            continue
    return found


def find(nvml: Any, device: str) -> Any:
    """NVML's handle of the frameworks' `cuda:INDEX`; None if the order of the cards is uncertain.

    NVML counts all GPUs by their position on the bus. The frameworks count only those in
    CUDA_VISIBLE_DEVICES, by number or by name, and order different cards by speed unless
    CUDA_DEVICE_ORDER says otherwise.
    """
    index = int(device.partition(":")[2] or 0)
    visible = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    chosen = visible[index] if index < len(visible) else ""
    if chosen and not chosen.isdigit():
        return nvml.nvmlDeviceGetHandleByUUID(chosen)
    every = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    alike = len({nvml.nvmlDeviceGetName(handle) for handle in every}) == 1
    if not alike and os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        return None
    return every[int(chosen or index)]
