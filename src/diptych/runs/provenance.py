"""Where numbers were made: what a run's or a sample's record says of the machine."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from diptych._version import __version__
from diptych.backends.protocol import Backend


def environment(backend: Backend) -> dict[str, Any]:
    """What a run's numbers may depend on besides its config."""
    return {
        **backend.describe(),
        "diptych": __version__,
        **machine_facts(),
        "command": sys.argv,
    }


def machine_facts() -> dict[str, Any]:
    """The machine and the interpreter, without a framework."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
