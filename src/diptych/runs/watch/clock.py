"""Unix time that no correction of the machine's clock moves.

The time of day is read once; what passes after that is counted, a machine's sleep with it. So rows
stay in order, and a gap between two of them is time that really went by.
"""

from __future__ import annotations

import time

PASSING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the first is Linux's
BEGAN = time.time() - time.clock_gettime(PASSING)


def now() -> float:
    """Seconds since 1970, as the process's first look at the time of day has them."""
    return BEGAN + time.clock_gettime(PASSING)
