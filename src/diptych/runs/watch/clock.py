"""Unix time that is not affected by corrections of the machine's clock.

The time of day is read once; the time since then is counted by a monotonic clock that includes a
machine's sleep. So rows stay in order, and a gap between two of them is real elapsed time.
"""

from __future__ import annotations

import time

PASSING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first only on Linux
BEGAN = time.time() - time.clock_gettime(PASSING)


def now() -> float:
    """Seconds since 1970, counted from the time of day at the process's first reading."""
    return BEGAN + time.clock_gettime(PASSING)
