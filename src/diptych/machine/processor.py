"""The processor: its name, its instruction sets, the threads asked for, and a driver for GPUs.

Every record that names the processor reads it here, and so does everything that starts threads by
OMP_NUM_THREADS. Importing this module loads no framework.
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

# What an ARM kernel reports of a processor in place of "model name".
ARM = ("CPU implementer", "CPU part", "CPU variant", "CPU revision")
DRIVER = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


def processor_name() -> str:
    """The processor's name as the kernel reports it, never empty.

    An ARM kernel gives numbers instead of a name; big and little cores give several.
    """
    facts = _facts()
    parts = [f"{key} {' and '.join(facts[key])}" for key in ARM if key in facts]
    model = next(iter(facts.get("model name", {})), "") or ", ".join(parts)
    return model or platform.processor() or platform.machine()


def instruction_sets() -> list[str]:
    """The instruction sets as the kernel names them, sorted; empty if it does not tell."""
    facts = _facts()
    return sorted(" ".join([*facts.get("flags", {}), *facts.get("Features", {})][:1]).split())


def _facts() -> dict[str, dict[str, None]]:
    """Of each key of /proc/cpuinfo, its values in the order of the cores, each once."""
    found: dict[str, dict[str, None]] = {}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), {})[value.strip()] = None
    return found


def has_nvidia_driver() -> bool:
    """True if an NVIDIA driver is loaded on this machine."""
    return any(Path(path).exists() for path in DRIVER)


def asked_threads() -> int | None:
    """The threads that OMP_NUM_THREADS asks for, at the outermost level; None: it does not."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def cores() -> int:
    """The logical cores that this process may use (`taskset` and clusters give fewer than all)."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def openmp_threads() -> int:
    """The threads of a framework on OpenMP: as many as asked for, else one for each usable core."""
    return asked_threads() or cores()


def share_cores(environment: MutableMapping[str, str]) -> None:
    """Give a process that works beside another one half of the cores, unless it is told.

    Threads that wait do not spin: that would take the cores from the other process.
    """
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores() // 2)))
    environment.setdefault("OMP_WAIT_POLICY", "passive")
