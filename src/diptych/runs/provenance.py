"""Provenance of numbers: the facts on the machine in the records of runs and samples."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from diptych import __version__
from diptych.backends.protocol import Backend


def environment(backend: Backend) -> dict[str, Any]:
    """Facts on which a run's numbers may depend in addition to its config."""
    return {
        **backend.describe(),
        "diptych": __version__,
        **machine_facts(),
        "command": sys.argv,
    }


def machine_facts() -> dict[str, Any]:
    """Facts on the machine and the interpreter; loads no framework."""
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
