"""GPU readings from a stand-in for NVML: those of the right card, or none."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from diptych.runs.watch import gpu


class NvmlFault(Exception):
    pass


def nvml(*refused: str) -> Any:
    """A stand-in of the library: three cards, the last of another kind, none tells its power."""

    def refuses(*_: Any) -> Any:
        raise NvmlFault

    told = {
        "NVMLError": NvmlFault, "nvmlInit": lambda: None, "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetHandleByUUID": lambda name: {"GPU-b": 1}[name],
        "nvmlDeviceGetName": lambda handle: "A" if handle < 2 else "B",
        "nvmlDeviceGetMemoryInfo": lambda h: types.SimpleNamespace(used=2**30, total=2**34),
        "nvmlDeviceGetUtilizationRates": lambda h: types.SimpleNamespace(gpu=97 + h),
        "nvmlDeviceGetPowerUsage": refuses, "nvmlDeviceGetTemperature": lambda h, kind: 61,
    }  # fmt: skip
    return types.SimpleNamespace(**told | dict.fromkeys(refused, refuses))


def test_nvml_is_read_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a card does not tell is left out, and nothing fails for it."""
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    told = gpu.reader("cuda:1")
    assert told is not None
    assert told() == {
        "util_percent": 98.0, "memory_mb": 1024.0, "memory_total_mb": 16384.0,
        "temperature_c": 61.0,
    }  # fmt: skip
    part = nvml("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTemperature")
    monkeypatch.setitem(sys.modules, "pynvml", part)
    of_part = gpu.reader("cuda")
    assert of_part is not None and set(of_part()) == {"memory_mb", "memory_total_mb"}
    assert gpu.reader("cpu") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.reader("cuda") is None


def test_the_card_is_the_frameworks_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its name where it is chosen by that; unlike cards have no sure order."""
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-x,GPU-b")
    assert gpu.find(nvml(), "cuda:1") == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    assert gpu.find(nvml(), "cuda:1") is None
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu.find(nvml(), "cuda:1") == 2
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpu.find(nvml(), "cuda:1") == 1
