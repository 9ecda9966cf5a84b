"""Stages as processes: side by side, each in its own session, ended in order when we end.

Ctrl-C in a terminal then only reaches us, not the children of a stage (Jittor's compilers, the
ladder's workers). A stage is asked by SIGTERM to save its work, and processes it leaves behind are
ended after it. SIGTERM and a closed terminal count as Ctrl-C; Ctrl-Z stops the stages with us.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from diptych.errors import STAGE
from diptych.machine.stopping import Stopped
from diptych.ranks import unlaunched

GRACE = 60.0
POLL = 0.05
Process = subprocess.Popen[bytes]


def processes(
    commands: list[list[str]], folder: Path, locks: Sequence[int] = ()
) -> list[tuple[int, float]]:
    """Run commands side by side in `folder`; return the exit code and seconds of each.

    Args:
        locks: open lock files, which the commands keep locked until they end, even if this process
            is killed before.

    Raises:
        KeyboardInterrupt: Ctrl-C, once the commands have saved and ended; `Stopped` for other
            signals.
    """
    begun: list[Process] = []
    with _signals(begun) as undisturbed:
        try:
            for words in commands:
                with undisturbed():  # else one that has just started would not be known
                    begun.append(_begin(words, folder, locks))
            return _wait(begun)
        except BaseException:  # if one cannot start, the others end too
            for process in begun:
                if process.poll() is None:
                    process.terminate()
            for process in begun:
                _ended(process)
            raise


def _begin(words: list[str], folder: Path, locks: Sequence[int]) -> Process:
    return subprocess.Popen(
        words,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env={**unlaunched(), STAGE: "1"},
        pass_fds=locks,
    )


def _wait(begun: Sequence[Process]) -> list[tuple[int, float]]:
    began, took = time.monotonic(), dict[int, float]()
    while len(took) < len(begun):
        time.sleep(POLL)
        for process in begun:
            if process.poll() is not None:
                took.setdefault(process.pid, time.monotonic() - began)
    return [(process.returncode, took[process.pid]) for process in begun]


def _ended(process: Process) -> None:
    """Wait for the end of a process; a second Ctrl-C or a timeout kills it at once."""
    try:
        process.wait(GRACE)
        _send(process, signal.SIGTERM)  # to the processes it has left behind
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        _send(process, signal.SIGKILL)
        process.wait()


def _send(process: Process, number: int) -> None:
    """Send a signal to a process and all its children."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


@contextmanager
def _signals(begun: Sequence[Process]) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Pass signals that only reach us on to the stages; gives a block in which they wait."""
    busy, waiting = False, list[int]()

    @contextmanager
    def undisturbed() -> Iterator[None]:
        nonlocal busy
        busy = True
        try:
            yield
        finally:
            busy = False
            while waiting:
                signal.raise_signal(waiting.pop(0))

    def stop(number: int, frame: FrameType | None) -> None:
        if busy:
            waiting.append(number)
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise Stopped(number)

    def pause(number: int, frame: FrameType | None) -> None:
        if busy:
            waiting.append(number)
            return
        running = [process for process in begun if process.poll() is None]
        for process in running:
            _send(process, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)  # returns once we are continued
        for process in running:
            _send(process, signal.SIGCONT)

    before: dict[int, Any] = {}
    taken = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGHUP: stop, signal.SIGTSTP: pause}
    try:
        for number, handler in taken.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
                before[number] = signal.signal(number, handler)
    except ValueError:
        pass  # not the main thread: the caller handles signals
    try:
        yield undisturbed
    finally:
        for each, earlier in before.items():
            signal.signal(each, earlier)
