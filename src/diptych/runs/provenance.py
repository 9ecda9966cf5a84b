"""Provenance of numbers: the facts on the machine in the records of runs and samples."""

from __future__ import annotations

import platform
import sys
from typing import Any

import numpy as np
import psutil

from diptych import __version__
from diptych.backends.protocol import Backend
from diptych.machine.processor import processor_name


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
        "cpu": processor_name(),
        "cores": psutil.cpu_count(),
    }
