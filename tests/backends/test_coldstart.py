"""Jittor's first compile and its quiet import, without the long compile.

The compile itself is replaced by a small command; everything around it (stamp, lock, failure,
interruption) is the real code. `make test` compiles Jittor for real before these tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import waiting
from diptych.backends.jittor import coldstart, quiet, setup
from diptych.cli.doctor import checks, report
from diptych.errors import UserError
from waiting import PATIENCE, running, until, written

# The number is written just after the lock is taken.
WAITS = re.compile(r"waiting for (process \d+|another process), which compiles Jittor")
FAKE_COMPILE = """
import json, pathlib, sys, time
result, runs, core, go = map(pathlib.Path, sys.argv[1:])
with runs.open("a") as out: out.write("run\\n")
while not go.exists(): time.sleep(0.02)
core.touch()
result.write_text(json.dumps({"core": str(core), "cache": "", "note": "slow kernels"}))
"""


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


# The compile: once, under a lock


class Fake:
    """A compile that ends once a file is there, and a count of how often it ran."""

    def __init__(self, folder: Path, go: Path | None = None) -> None:
        self.runs, self.core, self.go = folder / "runs", folder / "core.so", go or folder

    def command(self, result: Path) -> list[str]:
        paths = [str(path) for path in (result, self.runs, self.core, self.go)]
        return [sys.executable, "-c", FAKE_COMPILE, *paths]

    def count(self) -> int:
        return len(self.runs.read_text().split()) if self.runs.exists() else 0


def test_the_compile_runs_once_and_again_when_its_key_or_its_files_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its note is said when it has run."""
    fake = Fake(tmp_path)
    site = coldstart.Site(tmp_path / "site", {"compiler": "12"})
    for _ in range(2):
        coldstart.ensure(site, fake.command, fake.count, progress=False)
    assert coldstart.is_ready(site) and fake.count() == 1
    assert caplog.messages == ["slow kernels"]
    other = coldstart.Site(site.folder, {"compiler": "13"})
    coldstart.ensure(other, fake.command, fake.count, progress=False)
    assert fake.count() == 2 and not coldstart.is_ready(site)
    fake.core.unlink()
    coldstart.ensure(other, fake.command, fake.count, progress=False)
    assert fake.count() == 3
    coldstart.ensure(other, fake.command, fake.count, progress=False, again=True)
    assert fake.count() == 4


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"key": {}}', '{"key": {}, "result": null}'])
def test_a_damaged_stamp_counts_as_none(tmp_path: Path, stamp: str) -> None:
    site = coldstart.Site(tmp_path, {})
    site.stamp.write_text(stamp)
    assert not coldstart.is_ready(site)


def test_a_failed_compile_is_one_line_with_its_log_and_leaves_no_stamp(tmp_path: Path) -> None:
    site = coldstart.Site(tmp_path, {})
    program = "print('x.cc:1: error: no such header'); print('done'); raise SystemExit(3)"
    with pytest.raises(UserError) as caught:
        coldstart.ensure(site, lambda _: [sys.executable, "-c", program], int, progress=False)
    text = str(caught.value)
    assert "\n" not in text and "no such header" in text and str(site.log) in text
    assert not site.stamp.exists() and not site.owner.exists()


def test_a_compile_that_leaves_without_a_result_is_tried_again(tmp_path: Path) -> None:
    """Jittor exits with 0, and has compiled nothing, after it rebuilt its own helper."""
    fake = Fake(tmp_path)
    commands = iter([lambda _: [sys.executable, "-c", ""], fake.command])
    site = coldstart.Site(tmp_path / "site", {})
    coldstart.ensure(site, lambda result: next(commands)(result), fake.count, progress=False)
    assert coldstart.is_ready(site)


def test_of_two_processes_one_compiles_and_the_other_waits_and_says_so(tmp_path: Path) -> None:
    support = Path(waiting.__file__).parent
    program = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(support)]!r}
from pathlib import Path
from test_coldstart import Fake, coldstart
folder = Path({str(tmp_path)!r})
fake = Fake(folder, go=folder / "go")
coldstart.ensure(coldstart.Site(folder / "site", {{}}), fake.command, fake.count)
"""
    errors = [tmp_path / "error-0", tmp_path / "error-1"]
    both = []
    for path in errors:
        with path.open("w") as file:
            both.append(subprocess.Popen([sys.executable, "-c", program], stderr=file))

    def said() -> list[str]:
        """Messages of the waiting process; it waits until the compile is let go."""
        texts = [path.read_text() for path in errors]
        assert all(process.poll() is None for process in both), texts
        return [text for text in texts if WAITS.search(text)]

    try:
        until(said)
        (tmp_path / "go").touch()
        assert [process.wait(PATIENCE) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert Fake(tmp_path).count() == 1
    assert sum(len(WAITS.findall(path.read_text())) for path in errors) == 1


def test_an_interrupted_compile_takes_its_children_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    grandchild = f"echo $$ > {pid}; sleep 600"
    program = f"import subprocess; subprocess.run(['sh', '-c', {grandchild!r}])"

    def interrupt() -> None:
        if pid.exists() and pid.read_text().strip():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        coldstart.run([sys.executable, "-c", program], tmp_path / "log", tmp_path, interrupt)
    until(lambda: not running(int(pid.read_text())), seconds=PATIENCE / 2)  # not by itself


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_compile_ends_with_its_parent_whatever_ends_it(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    grandchild = f"echo $$ > {pid}; sleep 600"
    child = f"import subprocess; subprocess.run(['sh', '-c', {grandchild!r}])"
    program = f"""
import sys
from pathlib import Path
from diptych.backends.jittor import coldstart
folder = Path({str(tmp_path)!r})
coldstart.run([sys.executable, "-c", {child!r}], folder / "log", folder, lambda: None)
"""
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        until(lambda: written(pid))
        parent.send_signal(number)
    until(lambda: not running(int(pid.read_text())), seconds=PATIENCE / 2)


# Where Jittor lives: a fake home each, for the real one must never be changed


def test_a_home_that_was_set_once_is_seen_mended_and_never_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("JITTOR_HOME", raising=False)
    memory = tmp_path / ".cache" / "jittor" / "config.json"
    memory.parent.mkdir(parents=True)
    assert setup.home() == tmp_path and checks.jittor_home().status == "ok"
    memory.write_text(json.dumps({"JITTOR_HOME": "/elsewhere", "other": 1}))
    found = checks.jittor_home()
    assert (found.status, found.fix) == ("warn", checks.PREPARE) and "/elsewhere" in found.detail
    assert setup.home() == Path("/elsewhere")
    for before in ({"JITTOR_HOME": "/elsewhere", "other": 1}, {"other": 1}):
        memory.write_text(json.dumps(before))
        with setup.home_not_kept():  # what Jittor's import does where the variable is set
            memory.write_text(json.dumps({**before, "JITTOR_HOME": "/new"}))
        assert json.loads(memory.read_text()) == before
    memory.write_text(json.dumps({"JITTOR_HOME": "/elsewhere", "other": 1}))
    setup.forget_home()
    assert json.loads(memory.read_text()) == {"other": 1}
    assert setup.home() == tmp_path and checks.jittor_home().status == "ok"


def test_a_wait_for_jittors_own_lock_is_announced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = tmp_path / "jittor.lock"
    site = coldstart.Site(tmp_path, {})
    coldstart.say_if_busy(site)
    with lock.open("w") as held:
        site.stamp.write_text(json.dumps({"key": {}, "result": {"lock": str(lock)}}))
        coldstart.say_if_busy(site)
        assert caplog.text == ""
        fcntl.flock(held, fcntl.LOCK_EX)
        coldstart.say_if_busy(site)
    assert "waiting for another process" in caplog.text


# The quiet import


def test_jittors_information_is_dropped_and_its_warnings_are_kept() -> None:
    program = r"""
import os, sys
from diptych.backends.jittor import quiet
quiet.install()
os.write(2, b"\x1b[38;5;2m[i 1122 00:00 16 a.cc:1] chatter\x1b[m\n[w 1122 00:00 16 b.cc] careful\n")
os.write(2, b"\nCompiling Operators(1/3) used: 2s eta: 4s \rCompiling Operators(3/3) used: 6s \r\n")
print("ours", file=sys.stderr)
os.write(2, b"[e 1122 00:00 16 c.cc] last words")
os._exit(7)
"""
    done = python(program)
    assert done.returncode == 7
    assert sorted(done.stderr.splitlines()) == sorted(
        ["[w 1122 00:00 16 b.cc] careful", "ours", "[e 1122 00:00 16 c.cc] last words"]
    )
    assert "chatter" in python(program, log_v="0").stderr  # the user asked for Jittor's own log


@pytest.mark.jittor
def test_loading_jittor_is_quiet_and_leaves_the_process_as_it_was() -> None:
    if report._jittor().status != "ok" and os.environ.get("DIPTYCH_REQUIRE_PANELS") != "1":
        pytest.skip("Jittor is not compiled here: diptych doctor --prepare")
    done = python(
        """
import signal, ssl, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
before = signal.getsignal(signal.SIGINT), ssl._create_default_https_context, sys.getrecursionlimit()
from diptych.backends.jittor import setup
assert "jittor" not in sys.modules
jt = setup.load()
assert setup.load() is jt and "torch" not in sys.modules and (jt.ones(2) * 2).sum().item() == 4
after = signal.getsignal(signal.SIGINT), ssl._create_default_https_context, sys.getrecursionlimit()
assert before == after, (before, after)
signal.raise_signal(signal.SIGINT)
"""
    )
    lines = done.stderr.splitlines()
    said = [line for line in lines if "waiting for another process" not in line]  # a busy machine
    assert said[0].startswith("Traceback") and said[-1] == "KeyboardInterrupt", done.stderr
    assert done.stdout == ""


def test_the_quiet_filter_is_installed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("log_silent", "1")
    quiet.install()
    assert quiet._filter is None
