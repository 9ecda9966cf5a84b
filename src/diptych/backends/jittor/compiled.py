"""How many kernels this process has loaded: a step that adds one compiled it or read it in."""

from __future__ import annotations

from pathlib import Path


def loaded_kernels(cache: str) -> int:
    """Shared objects below Jittor's cache folder that are mapped; 0 where /proc is not there."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return 0
    lines = maps.read_text(errors="replace").splitlines()
    return len({line.split(maxsplit=5)[-1] for line in lines if cache in line})
