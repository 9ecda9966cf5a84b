"""A thread that writes one row of the machine's state per second to RUN/resources.jsonl.

cpu_percent      this process;  others_percent  all other processes;  steal_percent  the
                 hypervisor's other guests; 100 is one core
own_s            processor seconds spent on the row, by the thread's own clock
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from diptych.runs.watch import clock

log = logging.getLogger(__name__)

SECONDS = 1.0


class ResourceSampler:
    """Samples the machine from `__enter__` to `__exit__`.

    Args:
        path: file to append to.
        gpu: reads a GPU; None: no GPU.
        extra: returns more keys for a row; called in the thread.
        interval: seconds between two rows.
    """

    def __init__(
        self,
        path: Path,
        gpu: Callable[[], dict[str, float]] | None = None,
        extra: Callable[[], dict[str, Any]] = dict,
        interval: float = SECONDS,
    ) -> None:
        self.path, self.gpu, self.extra, self.interval = path, gpu, extra, interval
        self.process = psutil.Process()
        self.failed = ""
        self._stop = threading.Event()
        self._before = self._clocks()
        self._thread = threading.Thread(target=self._work, name="diptych-resources", daemon=True)

    def __enter__(self) -> ResourceSampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5.0)
        if self.failed:
            log.warning("%s: the record ends early (%s)", self.path, self.failed)

    def _work(self) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                done = False
                while not done:
                    done = self._stop.wait(self.interval)
                    if done and file.tell() and self._age() < self.interval / 2:
                        return  # over so short a time, shares are mostly clock granularity
                    file.write(json.dumps(self.sample()) + "\n")
                    file.flush()
        except Exception as error:  # a full disk, a lost GPU: stop recording, not the run
            self.failed = str(error) or type(error).__name__

    def _age(self) -> float:
        return clock.now() - self._before["wall"]

    def sample(self) -> dict[str, Any]:
        """One row: the current state, and the shares since the last row."""
        began = time.thread_time()
        now, before = self._clocks(), self._before
        self._before = now
        wall = max(1e-6, now["wall"] - before["wall"])
        own = now["own"] - before["own"]
        busy = now["busy"] - before["busy"]
        row: dict[str, Any] = {
            "time": clock.now(),
            "rss_mb": self.process.memory_info().rss / 2**20,
            "cpu_percent": round(100 * own / wall, 1),
            "threads": self.process.num_threads(),
            "load1": os.getloadavg()[0],
            "others_percent": round(100 * max(0.0, busy - own) / wall, 1),
            "steal_percent": round(100 * (now["steal"] - before["steal"]) / wall, 1),
            "available_mb": psutil.virtual_memory().available / 2**20,
            **self.extra(),
        }
        if self.gpu is not None and (told := self.gpu()):
            row["gpu"] = told
        row["own_s"] = time.thread_time() - began
        return row

    def _clocks(self) -> dict[str, float]:
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0)
        steal = getattr(machine, "steal", 0.0)
        guest = getattr(machine, "guest", 0.0) + getattr(machine, "guest_nice", 0.0)
        return {
            "wall": clock.now(),
            "own": time.process_time(),
            "busy": sum(machine) - idle - steal - guest,  # guest time is also counted in user
            "steal": steal,
        }
