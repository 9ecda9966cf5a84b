"""Ctrl-C and SIGTERM in the midst of a verb: one line, its exit code, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from waiting import PATIENCE, running, until

CTRL_C, SIGTERM = (2, 130, "interrupted"), (15, 143, "terminated")
SAMPLE = "sample zoo:mnist-jittor --backend jittor --solver ddpm --num 1 --quiet --out out"
DRAWING, CLIMBING = "out/manifest.json", "temporary/*/reference.json"
# A shell's background job ignores Ctrl-C.
MAIN = """
import signal
from diptych.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


@pytest.mark.slow
@pytest.mark.jittor
@pytest.mark.parametrize(
    "arguments, begun, ending",
    [
        (SAMPLE, DRAWING, CTRL_C),
        (SAMPLE, DRAWING, SIGTERM),
        ("align tiny --quiet --out page", CLIMBING, SIGTERM),
    ],
)
def test_a_signal_ends_a_verb_in_order(
    tmp_path: Path,
    both_installed: None,
    arguments: str,
    begun: str,
    ending: tuple[int, int, str],
) -> None:
    """It comes to the verb alone, not to the compilers, filters and workers that it has started."""
    number, code, word = ending
    (tmp_path / "temporary").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments.split()],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: any(tmp_path.glob(begun)))
    verb = psutil.Process(process.pid)
    until(lambda: bool(verb.children()))  # a worker starts after its job is written
    children = [child.pid for child in verb.children(recursive=True)]
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == code
    assert said.splitlines()[-1] == f"diptych: {word}" and "Traceback" not in said
    assert not list((tmp_path / "temporary").iterdir())
    until(lambda: not any(map(running, children)))
