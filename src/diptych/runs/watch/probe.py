"""Per-step clocks of the process, which distinguish a slow step that worked from one that waited.

    ended       unix time at the end of the step
    cpu_s       processor seconds of all threads;    system_s   those inside the kernel
    children_s  processor seconds of finished children: a JIT's compiler
    page_faults pages that the kernel had to provide
    queue_s     seconds in which a computing thread was ready but had no processor: the longest
                delay of all threads that computed at least a quarter as much as the busiest

queue_s comes from Linux's `schedstat`; without it, the key is absent. One reading costs about
10 microseconds per thread.
"""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

from diptych.runs.watch import clock

TASKS = Path("/proc/self/task")
COMPUTING = 0.25  # share of the busiest thread's processor time


class Probe:
    """Differences of the process's clocks over one step."""

    def __init__(self) -> None:
        self.spent = 0.0  # total processor seconds of the readings themselves
        self.scheduled = (TASKS / str(os.getpid()) / "schedstat").is_file()
        self._before = self._read()

    def begin(self) -> None:
        """Mark the beginning of a step."""
        began = time.thread_time()
        self._before = self._read()
        self.spent += time.thread_time() - began

    def end(self) -> dict[str, Any]:
        """Differences of the clocks since `begin`; for the keys see the module."""
        began = time.thread_time()
        (own, children, threads), (own0, children0, threads0) = self._read(), self._before
        row: dict[str, Any] = {
            "ended": clock.now(),
            "cpu_s": own.ru_utime + own.ru_stime - own0.ru_utime - own0.ru_stime,
            "system_s": own.ru_stime - own0.ru_stime,
            "children_s": children - children0,
            "page_faults": own.ru_minflt + own.ru_majflt - own0.ru_minflt - own0.ru_majflt,
        }
        if self.scheduled:
            row["queue_s"] = queued(threads0, threads)
        self.spent += time.thread_time() - began
        return row

    def _read(self) -> tuple[Any, float, dict[str, tuple[int, int]]]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        threads = thread_times() if self.scheduled else {}
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own, children.ru_utime + children.ru_stime, threads


def thread_times() -> dict[str, tuple[int, int]]:
    """Nanoseconds (on a processor, ready but waiting for one) of each thread of this process."""
    found = {}
    for name in os.listdir(TASKS):
        try:
            ran, waited, _ = (TASKS / name / "schedstat").read_bytes().split()
        except (OSError, ValueError):
            continue  # the thread has ended since
        found[name] = int(ran), int(waited)
    return found


def queued(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> float:
    """Seconds for which the most delayed computing thread waited for a processor."""
    gone = {}
    for name, (ran, waited) in after.items():
        ran0, waited0 = before.get(name, (0, 0))
        gone[name] = ran - ran0, waited - waited0
    most = max((ran for ran, _ in gone.values()), default=0)
    delays = [waited for ran, waited in gone.values() if ran >= COMPUTING * most]
    return max(delays, default=0) / 1e9
