"""The CUDA toolkit for Jittor: one that it can load, or none.

Jittor takes the first `nvcc` it finds and then loads `../lib64/libcudart.so` and cuDNN 8 beside
it; if one of them is missing, `import jittor` fails. If it finds a driver and no `nvcc`, it
downloads a toolkit. So we look first, and give Jittor either a complete toolkit or none
(`nvcc_path=""`); with none, the backend runs on the CPU.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from diptych.machine.processor import has_nvidia_driver

_PLACES = ("/usr/local/cuda/bin/nvcc", "/usr/bin/nvcc", "/opt/cuda/bin/nvcc")
_SYSTEM_LIBS = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib"))


@dataclass(frozen=True)
class Toolkit:
    """`nvcc` of a complete toolkit, or "" and the reason why there is none."""

    nvcc: str
    reason: str


def find_toolkit(home: Path, driver: bool | None = None) -> Toolkit:
    """Find the first toolkit that Jittor can load, or the reason for none; only reads files.

    Args:
        home: Jittor's home, where `python -m jittor_utils.install_cuda` puts one.
        driver: whether there is an NVIDIA driver; None: look.
    """
    if not (has_nvidia_driver() if driver is None else driver):
        return Toolkit("", "no NVIDIA driver")
    own = sorted(map(str, home.glob(".cache/jittor/jtcuda/*/bin/nvcc")), reverse=True)
    found = [os.environ.get("nvcc_path") or "", *own, shutil.which("nvcc") or "", *_PLACES]
    reasons = []
    for nvcc in dict.fromkeys(path for path in found if path and Path(path).is_file()):
        lack = _lack(Path(os.path.realpath(nvcc)))
        if not lack:
            return Toolkit(os.path.realpath(nvcc), "")
        reasons.append(f"{nvcc}: {lack}")
    return Toolkit("", "; ".join(reasons) or "no nvcc")


def _lack(nvcc: Path) -> str:
    """The part of a toolkit that is missing beside this compiler, or ""."""
    root = nvcc.parent.parent
    lib = _SYSTEM_LIBS[0] if nvcc == Path("/usr/bin/nvcc") else root / "lib64"
    if not (lib / "libcudart.so").is_file():
        return f"no {lib / 'libcudart.so'}"
    libs = (lib, root / "targets" / "x86_64-linux" / "lib", *_SYSTEM_LIBS)
    if not any((place / "libcudnn_ops_infer.so").is_file() for place in libs):
        return "no cuDNN 8 (libcudnn_ops_infer.so)"
    return ""
