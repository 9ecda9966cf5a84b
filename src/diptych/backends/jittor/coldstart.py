"""Jittor's first compile, done once: under a lock, in a child process, with progress shown.

The first `import jittor` in an environment compiles the framework for about four minutes,
silently, and so does every process that starts meanwhile. Here the first process compiles, the
others wait and say why, and a stamp lets later starts skip it in milliseconds. The stamp's key
holds everything that Jittor's own cache depends on (see `setup.compile_key`). A killed compile
leaves no stamp; the next start continues from the finished files, which Jittor keeps by key.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from diptych.errors import MachineError, UserError

log = logging.getLogger(__name__)

EXPECTED_FILES = 165  # object files and libraries of a CPU build of Jittor 1.3.11, counted
_ATTEMPTS = 2  # Jittor may exit with code 0 and no result after rebuilding its helper
_SAY_EVERY = 30.0  # seconds between two lines of progress without a terminal


@dataclass(frozen=True)
class Site:
    """The compile of one environment: the folder of its lock, log and stamp, and its key."""

    folder: Path
    key: dict[str, str]

    @property
    def log(self) -> Path:
        return self.folder / "compile.log"

    @property
    def stamp(self) -> Path:
        return self.folder / "stamp.json"

    @property
    def owner(self) -> Path:
        return self.folder / "owner"


def is_ready(site: Site) -> bool:
    """True if the stamp matches this environment's key and the compiled core is there."""
    try:
        stamp = json.loads(site.stamp.read_text())
        return bool(stamp["key"] == site.key and Path(stamp["result"]["core"]).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def say_if_busy(site: Site) -> None:
    """Say for what `import jittor` is about to wait, if it is.

    Jittor holds one lock while it compiles kernels, and its import waits for that lock in silence,
    for minutes if another process has just begun to train.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        path = json.loads(site.stamp.read_text())["result"]["lock"]
        with Path(path).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("waiting for another process, in which Jittor compiles kernels")


def ensure(
    site: Site,
    command: Callable[[Path], Sequence[str]],
    count: Callable[[], int],
    *,
    progress: bool = True,
    again: bool = False,
) -> None:
    """Compile unless the stamp says it is done; on return, `import jittor` is fast.

    Args:
        command: given the file to write on success, returns the compile's argument list.
        count: returns the number of files compiled so far.
        progress: show a bar on stderr (without a terminal, an occasional line).
        again: run the compile even if the stamp is good; fast if nothing is missing.

    Raises:
        UserError: the compile failed; the message names the log.
        MachineError: the folder cannot be written.
    """
    if is_ready(site) and not again:
        return
    try:
        site.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(site.folder / "lock")
        with Progress(count, progress) as shown:
            _wait_for(lock, site, shown)
            try:
                if again or not is_ready(site):
                    _compile(site, command, shown)
            finally:
                site.owner.unlink(missing_ok=True)
                lock.release()
    except OSError as error:
        raise MachineError(
            f"{site.folder}: cannot prepare Jittor here ({error.strerror or error}). "
            "Free some space, or set HOME to a writable folder."
        ) from error


def _wait_for(lock: FileLock, site: Site, shown: Progress) -> None:
    said = False
    while True:
        try:
            lock.acquire(timeout=0.5 if said else 0)
            break
        except Timeout:
            if not said:
                time.sleep(0.3)  # the owner writes its name just after it locks
                owner = site.owner.read_text() if site.owner.is_file() else "another process"
                shown.say(f"waiting for {owner}, which compiles Jittor (log: {site.log})")
                said = True
            shown.tick()
    site.owner.write_text(f"process {os.getpid()}")


def _compile(site: Site, command: Callable[[Path], Sequence[str]], shown: Progress) -> None:
    result = site.folder / "result.json"
    if not is_ready(site):
        shown.say("compiling Jittor for this machine: once, about 4 minutes on 2 cores")
    site.stamp.unlink(missing_ok=True)
    for _ in range(_ATTEMPTS):
        result.unlink(missing_ok=True)
        code = run(command(result), site.log, site.folder, shown.tick)
        if code != 0 or result.is_file():
            break
    if not result.is_file():
        raise UserError(
            f"Jittor did not compile (exit code {code}): {_last_line(site.log)} "
            f"The compiler's messages: {site.log}"
        )
    stamp = {"key": site.key, "result": json.loads(result.read_text())}
    new = site.stamp.with_suffix(".new")
    new.write_text(json.dumps(stamp, indent=1))
    new.replace(site.stamp)
    if note := stamp["result"].get("note"):
        log.warning("%s", note)


# Starts the real command, and ends its whole group as soon as the process that asked for it is
# gone, even by kill -9: the kernel tells this one (PR_SET_PDEATHSIG, 1), which only waits.
_GUARD = """
import ctypes, os, signal, subprocess, sys, time
child = None
def stop(*_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    end = time.monotonic() + 5
    while child is not None and child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(0, signal.SIGKILL)
signal.signal(signal.SIGTERM, stop)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(143)
child = subprocess.Popen(sys.argv[2:])
code = child.wait()
sys.exit(code if code >= 0 else 128 - code)
"""


def run(command: Sequence[str], log: Path, folder: Path, tick: Callable[[], None]) -> int:
    """Run a child to its end with its output in `log`; it ends, with its children, if we do.

    It runs in `folder`, so that no file in the user's current folder can shadow a module, and it is
    no rank of `mpirun`, under which we may run: MPI has room for one process a rank.
    """
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_"))}
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(timeout=0.5)
            tick()
    except BaseException:
        _stop(child)
        raise


def _stop(child: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a child and the compilers it started; they may first remove their own files."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
        end = time.monotonic() + patience
        while time.monotonic() < end:
            child.poll()  # else it remains in its group as a zombie
            os.killpg(child.pid, 0)  # ProcessLookupError once the group is empty
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _last_line(log: Path) -> str:
    """The most telling line of a log: the last one that names an error, else the last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower()]
    return (named or lines or ["no message."])[-1][:200]


class Progress:
    """Files compiled so far: a bar on a terminal, a line every half minute elsewhere."""

    def __init__(self, count: Callable[[], int], shown: bool) -> None:
        self.count, self.shown = count, shown
        self.started = self.said = time.monotonic()
        self.bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def say(self, text: str) -> None:
        if self.shown:
            with tqdm.external_write_mode(file=sys.stderr):
                log.warning("%s", text)

    def tick(self) -> None:
        if not self.shown:
            return
        if sys.stderr.isatty():
            self._draw()
        elif time.monotonic() - self.said >= _SAY_EVERY:
            self.said = time.monotonic()
            self.say(
                f"compiling Jittor: {self.said - self.started:.0f} s, "
                f"{self.count()} of about {EXPECTED_FILES} files"
            )

    def _draw(self) -> None:
        if self.bar is None:
            self.bar = tqdm(total=EXPECTED_FILES, desc="compiling Jittor", unit="file", leave=False)
        self.bar.n = self.count()
        self.bar.total = max(EXPECTED_FILES, self.bar.n)
        self.bar.refresh()
