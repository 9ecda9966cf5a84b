"""Commands run as child processes, which may save their work when this process is stopped."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any

from diptych.machine.stopping import Stopped

GRACE = 60.0  # seconds for a child to save


def run_child(command: Sequence[str], **options: Any) -> int:
    """Run a command to its end and return its exit code.

    SIGTERM to this process is passed on; Ctrl-C reaches the child by itself, from the terminal. In
    both cases it has a minute to end, and Ctrl-C then kills it. A second SIGTERM does not: a
    cluster's may come to every process and be passed on as well.

    Args:
        command: the words.
        options: of `subprocess.Popen`.
    """
    process = subprocess.Popen(command, **options)
    try:
        return process.wait()
    except BaseException as error:
        if not isinstance(error, KeyboardInterrupt) or isinstance(error, Stopped):
            process.terminate()
        _end(process, time.monotonic() + GRACE)
        raise


def _end(process: subprocess.Popen[Any], by: float) -> None:
    while process.poll() is None:
        try:
            process.wait(max(0.0, by - time.monotonic()))
        except Stopped:
            continue
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
