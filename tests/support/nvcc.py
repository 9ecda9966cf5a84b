"""The CUDA compiler, if there is one: on the PATH, or from the packages of the `dev` extra.

The packages' one is found here alone and never by Jittor, which looks on the PATH.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = ("-std=c++14", "--use_fast_math", "-w", "-x", "cu", "-c")  # as Jittor's
CARDS = ("80", "90")  # A100, H100


def find() -> str | None:
    """The path of nvcc, or None."""
    spec = importlib.util.find_spec("nvidia")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for each in sorted(Path(folder).glob("cu*/bin/nvcc")):
            return str(each)
    return shutil.which("nvcc")


needs_nvcc = pytest.mark.skipif(find() is None, reason="nvcc is not installed")


def compile_for_cards(source: str, folder: Path, includes: tuple[str, ...] = ()) -> str:
    """Compile a CUDA source for CARDS; return what the compiler says, "" if all is well."""
    (folder / "body.cu").write_text(source)
    cards = [f"-gencode=arch=compute_{card},code=sm_{card}" for card in CARDS]
    command = [find() or "nvcc", *FLAGS, *cards, *(f"-I{path}" for path in includes)]
    done = subprocess.run(
        [*command, "-o", "body.o", "body.cu"], cwd=folder, capture_output=True, text=True
    )
    return "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"
