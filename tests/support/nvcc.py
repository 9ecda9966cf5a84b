"""The CUDA compiler, if there is one: on the PATH, or from the packages of the `dev` extra.

The packages' one is found here alone and never by Jittor, which looks on the PATH.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

# Jittor's, for an A100 and an H100.
FLAGS = ("-std=c++14", "--use_fast_math", "-w", "-x", "cu", "-c", "-arch=compute_80")
FLAGS += ("-code=sm_80,sm_90",)


def find() -> str | None:
    """The path of nvcc, or None."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for each in sorted(Path(folder).glob("cu*/bin/nvcc")):
            return str(each)
    return shutil.which("nvcc")


needs_nvcc = pytest.mark.skipif(find() is None, reason="nvcc is not installed")


def compile_for_cards(source: str, folder: Path, includes: tuple[str, ...] = ()) -> str:
    """Compile a CUDA source; return ptxas's report. Fails with what the compiler says."""
    (folder / "body.cu").write_text(source)
    command = [find() or "nvcc", *FLAGS, "-Xptxas=-v", *(f"-I{path}" for path in includes)]
    done = subprocess.run(
        [*command, "-o", "body.o", "body.cu"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stderr
