"""A free port for ranks that meet on this machine."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from itertools import count

PORTS = range(20_000, 32_000)  # below those that the system gives to whoever asks for any
_ASKED = count()


def free_port() -> int:
    """A port that stays free until rank 0, which first loads its framework, listens there.

    Processes that ask at the same time begin to look at different places. Raises OSError.
    """
    first = 37 * os.getpid() + next(_ASKED)
    for k in range(len(PORTS)):
        port = PORTS[(first + k) % len(PORTS)]
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
