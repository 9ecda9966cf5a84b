"""A study's processes: ended in order and silently, stopped and continued with the study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from diptych.errors import STAGE
from diptych.study.reproduce.processes import Stopped, processes
from waiting import PATIENCE, running, until

# Says its process and its child's, takes a moment to save on SIGTERM, and leaves its child behind.
STAGE_CODE = """
import os, signal, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
def save(number, frame):
    time.sleep(0.3)
    open("saved", "w").write(os.environ["DIPTYCH_STAGE"])
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("began.tmp", "w").write(f"{os.getpid()} {child.pid}")
os.replace("began.tmp", "began")
while True:
    time.sleep(0.01)
"""
RUNNER = f"""
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup this
from diptych.study.reproduce.processes import processes
try:
    processes([[sys.executable, "-c", {STAGE_CODE!r}]], Path("."))
except KeyboardInterrupt as stop:
    sys.exit(getattr(stop, "number", 2))
"""


def start(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    begun = subprocess.Popen([sys.executable, "-c", RUNNER], cwd=folder, start_new_session=True)
    until((folder / "began").exists)  # its file is renamed to that name once it is whole
    return begun, [int(word) for word in (folder / "began").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_the_stage_save_and_ends_what_it_leaves(tmp_path: Path, number: int) -> None:
    """To the whole group, as a terminal sends it: the stage itself hears of SIGTERM alone."""
    begun, pids = start(tmp_path)
    os.killpg(begun.pid, number)
    assert begun.wait(PATIENCE) == number
    assert (tmp_path / "saved").read_text() == "1"
    until(lambda: not any(map(running, pids)), seconds=PATIENCE / 2)  # not by themselves


def test_ctrl_z_stops_the_stages_too(tmp_path: Path) -> None:
    begun, pids = start(tmp_path)

    def are(state: str) -> Callable[[], bool]:
        return lambda: all(
            (psutil.Process(pid).status() == psutil.STATUS_STOPPED) == (state == "stopped")
            for pid in (begun.pid, *pids)
        )

    os.kill(begun.pid, signal.SIGTSTP)
    until(are("stopped"))
    os.kill(begun.pid, signal.SIGCONT)
    until(are("running"))
    begun.terminate()
    assert begun.wait(PATIENCE) == signal.SIGTERM


# The signal comes between the start of the process and the note that it was started.
EARLY = """
import signal, sys
from pathlib import Path
from diptych.study.reproduce.processes import processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
begin = processes.__globals__["_begin"]
def late(*given):
    process = begin(*given)
    print(process.pid)
    signal.raise_signal(int(sys.argv[1]))
    return process
processes.__globals__["_begin"] = late
try:
    processes([["sleep", "600"], ["sleep", "600"]], Path("."))
except KeyboardInterrupt as stop:
    sys.exit(getattr(stop, "number", 2))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_stage_starts_ends_it(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", EARLY, str(int(number))]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=PATIENCE
    )
    assert done.returncode == number
    [started] = done.stdout.split()
    assert not running(int(started))


def test_codes_come_back_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the seconds of each: the first ends after the end of the second was seen."""
    assert issubclass(Stopped, KeyboardInterrupt)
    readings = count()

    def monotonic() -> float:
        now = next(readings)
        if now == 1:  # 0: they began; 1: the first look at one that has ended
            (tmp_path / "seen").touch()
        return float(now)

    clock = SimpleNamespace(sleep=time.sleep, monotonic=monotonic)
    monkeypatch.setitem(processes.__globals__, "time", clock)
    waits = "until [ -e seen ]; do sleep 0.02; done; exit 3"
    ended = processes([["sh", "-c", waits], ["sh", "-c", "exit 0"]], tmp_path)
    assert [code for code, _ in ended] == [3, 0]
    assert ended[1][1] == 1.0 and ended[0][1] > 1.0  # of each its own


def test_one_that_cannot_begin_ends_the_others(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(FileNotFoundError):
        processes([["sh", "-c", "echo $$ > pid; exec sleep 600"], ["./no-such-thing"]], tmp_path)
    left = [child for child in psutil.Process().children() if child.pid not in before]
    assert not any(child.status() != psutil.STATUS_ZOMBIE for child in left)


@pytest.mark.parametrize("module", ["batches", "difference"])
@pytest.mark.parametrize("stage", [False, True])
def test_stages_that_are_no_verbs_end_in_one_line(tmp_path: Path, module: str, stage: bool) -> None:
    """A folder that is none, and Ctrl-C in the midst: no traceback; in a study, not even a line."""
    words = {"batches": ["no-run", "--backend", "torch", "--out", "x"], "difference": ["a", "b"]}
    here = {key: value for key, value in os.environ.items() if key != STAGE}
    env = here | ({STAGE: "1"} if stage else {})
    command = [sys.executable, "-m", f"diptych.study.reproduce.{module}", *words[module]]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    held = {"batches": "load", "difference": "read_set"}[module]
    code = (
        f"import sys, diptych.study.reproduce.{module} as m\n"
        f"def stop(*_, **__): raise KeyboardInterrupt\n"
        f"m.{held} = stop\nsys.argv[1:] = {words[module]!r}\nm.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr == ("" if stage else "diptych: interrupted\n")
