"""A worker ends with the process that started it, even if that one is killed.

The parent holds the writing end of the worker's standard input and writes nothing; when it is gone,
however it went, the system closes that end. A signal on the parent's death (PR_SET_PDEATHSIG) would
come when the *thread* that started the worker ends, and exists on Linux only.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import threading

ORPHANED = 143  # the exit code, as of SIGTERM


def end_with_parent() -> None:
    """Watch standard input, if it is a pipe, and end this process when it is closed.

    What runs here reads an empty standard input instead.
    """
    if not stat.S_ISFIFO(os.fstat(0).st_mode):
        return
    watched = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    if hasattr(fcntl, "F_SETSIG"):
        # Linux tells of the closing by a signal; no thread runs while a framework that compiles
        # holds Python's lock for minutes.
        fcntl.fcntl(watched, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(watched, fcntl.F_SETFL, fcntl.fcntl(watched, fcntl.F_GETFL) | os.O_ASYNC)
    threading.Thread(target=_watch, args=(watched,), daemon=True).start()


def _watch(watched: int) -> None:
    while os.read(watched, 4096):
        pass
    os._exit(ORPHANED)
