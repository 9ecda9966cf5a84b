"""A run's observer: resource sampler, per-step probe and events, behind one small object.

If it is switched off, every method does nothing and rows gain no keys.
"""

from __future__ import annotations

import gc
import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from diptych.runs.watch import clock, gpu
from diptych.runs.watch.probe import Probe
from diptych.runs.watch.resource_log import ResourceSampler

GC_LEAST_S = 1e-3
SLOW, RECENT, FIRST = 1.5, 50, 3  # slow: above SLOW medians of RECENT steps, at least FIRST


class Watch:
    """Observes one call of `train`.

    Args:
        run: run folder.
        on: False observes nothing.
        device: the backend's device, for NVML.
        counters: the framework's own counters (`Backend.counters`); called in the caller's
            thread, at slow steps and by `count`.
    """

    def __init__(
        self,
        run: Path,
        on: bool = True,
        device: str = "cpu",
        counters: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.path, self.on = run / "events.jsonl", on
        self.counters, self.last = counters, dict[str, float]()
        self.step = 0
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._stack = ExitStack()
        if on:
            self.probe = Probe()
            self.sampler = ResourceSampler(run / "resources.jsonl", gpu.reader(device), self._extra)

    def __enter__(self) -> Watch:
        if self.on:
            self._began_gc = 0.0
            gc.callbacks.append(self._collected)
            self._stack.callback(gc.callbacks.remove, self._collected)
            self._stack.enter_context(self.sampler)
            self.count()
            self.note("start", clock.now(), 0.0)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the record."""
        self._stack.close()

    def begin(self) -> None:
        """Mark the beginning of a step's computation."""
        if self.on:
            self.probe.begin()

    def end(self, step: int, seconds: float) -> dict[str, Any]:
        """Keys for the row of a step of `seconds`; a slow step that loaded kernels is an event."""
        self.step = step
        if not self.on:
            return {}
        row = self.probe.end()
        usual = median(self._recent) if len(self._recent) >= FIRST else 0.0
        if seconds > SLOW * usual:
            before = self.last.get("kernels", 0)
            new = self.count().get("kernels", 0) - before
            if new > 0:
                at = row["ended"] - seconds
                self.note("compile", at, max(0.0, seconds - usual), {"kernels": int(new)})
        self._recent.append(seconds)
        return row

    def count(self) -> dict[str, float]:
        """Read the framework's counters now; the next row of resources.jsonl includes them."""
        if self.on:
            self.last = self.counters()
        return self.last

    @contextmanager
    def event(self, kind: str, step: int) -> Iterator[None]:
        """Record the block as an event of `kind`."""
        at, began = clock.now(), time.perf_counter()
        yield
        if self.on:
            self.note(kind, at, time.perf_counter() - began, step=step)

    def note(
        self,
        kind: str,
        at: float,
        seconds: float,
        detail: dict[str, Any] | None = None,
        step: int | None = None,
    ) -> None:
        """Write one event: its begin (unix time) and its duration in seconds."""
        row = {"time": at, "seconds": seconds, "kind": kind, "detail": detail or {}}
        row["step"] = self.step if step is None else step
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError:
            return  # a full disk stops the recording; the run reports it when it saves

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._began_gc = time.perf_counter()
            return
        seconds = time.perf_counter() - self._began_gc
        if self._began_gc and seconds >= GC_LEAST_S:
            detail = {"generation": info["generation"], "collected": info["collected"]}
            self.note("gc", clock.now() - seconds, seconds, detail)

    def _extra(self) -> dict[str, Any]:
        spent, self.probe.spent = self.probe.spent, 0.0
        return {"probe_s": spent, **({"counters": self.last} if self.last else {})}
