"""A count of loaded kernels: a step that raises it compiled a kernel or loaded one from cache."""

from __future__ import annotations

from pathlib import Path


def loaded_kernels(cache: str) -> int:
    """Number of mapped shared objects below Jittor's cache folder; 0 without /proc."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return 0
    lines = maps.read_text(errors="replace").splitlines()
    return len({line.split(maxsplit=5)[-1] for line in lines if cache in line})
