"""docs/python.md is a program: its blocks run in a fresh process of each panel, and run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REQUIRED, available

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
OTHER = {"torch": "# Jittor", "jittor": "# PyTorch"}


def blocks(panel: str) -> list[str]:
    """The page's Python, without what is for the other panel."""
    found = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    chosen = [block for block in found if not block.startswith(OTHER[panel])]
    assert len(chosen) == len(found) - 1
    return [block.replace('backend = "torch"', f'backend = "{panel}"') for block in chosen]


@pytest.mark.slow
@pytest.mark.parametrize(
    "panel", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in OTHER]
)
def test_the_page_runs_twice_in_a_fresh_process(panel: str, tmp_path: Path) -> None:
    """Names are still there the second time: `diptych.train` was once a module the second time."""
    if not available(panel) and not REQUIRED:
        pytest.skip(f"{panel} is not installed")
    page = tmp_path / "page.py"
    page.write_text("\n".join(blocks(panel)))
    program = f"""
import os, runpy
for name in ("first", "second"):
    os.makedirs(name)
    os.chdir(name)
    space = runpy.run_path({str(page)!r})
    assert all(os.path.exists(f"{{folder}}/index.html") for folder in ("page", "comparison"))
    assert space["x"].shape == (4, 28, 28, 1) and space["score"].metric == "mnist-frechet"
    assert b"PNG" in space["diptych"].grid(space["x"])._repr_png_()
    os.chdir("..")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = done.stdout.splitlines()
    for start in ("<Dataset arrays: 256 images", "<Run 'run': ", "<Model 'step-00000008': U-Net"):
        assert sum(line.startswith(start) for line in said) == 2, said
    assert sum("go on with resume=True" in line for line in said) == 2
    assert "--" not in done.stdout
