"""A child command may save its work when we are stopped, and does not outlive us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waiting import PATIENCE, running, until, written

CHILD = """
import os, signal, sys, time
from pathlib import Path
def save(number, frame):
    Path("saving").touch()
    time.sleep(0.5)  # longer than `subprocess.run` waits after Ctrl-C
    Path("saved").write_text(str(number))
    sys.exit(7)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, save if sys.argv[1] == "saves" else signal.SIG_IGN)
Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""
PARENT = f"""
import signal, sys
from diptych.machine import children
from diptych.machine.stopping import stop_in_order
stop_in_order()
signal.signal(signal.SIGINT, signal.default_int_handler)
children.GRACE = float(sys.argv[2])
children.run_child([sys.executable, "-c", {CHILD!r}, sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("child", "grace"), [("saves", PATIENCE), ("is deaf", 0.2)])
def test_a_child_saves_or_is_killed(tmp_path: Path, number: int, child: str, grace: float) -> None:
    command = [sys.executable, "-c", PARENT, child, str(grace)]
    parent = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    until(lambda: written(tmp_path / "pid"))
    if number == signal.SIGINT:  # as a terminal sends it
        os.killpg(parent.pid, number)
    else:
        parent.send_signal(number)
        if child == "saves":  # once more, while the child is at it
            until(lambda: (tmp_path / "saving").exists())
            parent.send_signal(number)
    assert parent.wait(PATIENCE) != 0
    assert not running(int((tmp_path / "pid").read_text()))
    saved = tmp_path / "saved"
    assert (saved.read_text() == str(int(number))) if child == "saves" else not saved.exists()


def test_its_exit_code_comes_back(tmp_path: Path) -> None:
    from diptych.machine.children import run_child

    assert run_child(["sh", "-c", "exit 3"], cwd=tmp_path) == 3
