"""Jittor's standard error without its chatter: information off, warnings and errors kept.

Jittor writes from C++ to file descriptor 2. Its own switch, `log_silent`, drops warnings along with
the information, and no switch drops its 'Compiling Operators' counter. So descriptor 2 becomes a
pipe to a small process that passes on every line except those two kinds (the counter is kept on a
terminal). It is a process, not a thread, because Jittor holds Python's lock while it compiles, and
its output in a crash must outlive us. Python's own `sys.stderr` keeps the real stream, so progress
bars are not delayed.
"""

from __future__ import annotations

import os
import subprocess
import sys

_FILTER = r"""
import os, re, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
noise = re.compile(rb"(\x1b\[[0-9;]*m)*\[i ")
counter = re.compile(rb"\s*Compiling Operators\(")
keep_counter = sys.argv[1] == "1"
held = blank = b""
dropped = False
while True:
    data = os.read(0, 65536)
    pieces = re.split(rb"(?<=[\n\r])", held + data)
    held = pieces.pop() if data else b""
    for piece in pieces:
        if not piece.strip():
            blank += b"" if dropped else piece
        elif noise.match(piece) or (counter.match(piece) and not keep_counter):
            blank, dropped = b"", True
        else:
            os.write(1, blank + piece)
            blank, dropped = b"", False
    if not data:
        break
"""

_filter: subprocess.Popen[bytes] | None = None


def install() -> None:
    """Filter C++ output to standard error from now on; a no-op after the first call.

    If the user has set `log_silent`, `log_v` or `log_vprefix` in the environment, nothing is
    filtered.
    """
    global _filter
    if _filter is not None or any(
        name in os.environ for name in ("log_silent", "log_v", "log_vprefix")
    ):
        return
    real = os.dup(2)
    _filter = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _FILTER, "1" if os.isatty(real) else "0"],
        stdin=subprocess.PIPE,
        stdout=real,
        start_new_session=True,
    )
    assert _filter.stdin is not None
    if _writes_to_descriptor_2():
        sys.stderr.flush()
        sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.dup2(_filter.stdin.fileno(), 2)
    _filter.stdin.close()


def _writes_to_descriptor_2() -> bool:
    """True if `sys.stderr` is the plain stream, not a notebook's or a test runner's."""
    try:
        return sys.stderr is not None and sys.stderr.fileno() == 2
    except (OSError, ValueError):
        return False
