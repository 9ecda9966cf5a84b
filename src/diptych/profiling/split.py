"""One training step in phases, synchronised at both ends of each, beside the same step unsplit.

    data       making the batch (in training a thread does it while the previous step computes)
    to_device  copying the batch's arrays; measured by an additional copy and subtracted from
               `forward`, which contains it
    forward    noising, network, loss        backward  gradients of all weights
    optimizer  clipping and Adam             ema       the moving average
    compile    compiling and loading kernels during warm-up: total seconds, not one step's

Synchronising at every boundary costs time, and in Jittor it also prevents the fusion of operators
across it. So every second step is left whole, and the ratio of the two, pair by pair, is reported
with its interval: the phases are only as exact as that ratio is near 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from diptych.backends.protocol import Backend, Batch, Learner
from diptych.stats import median_interval
from diptych.training.batches import Batches

PHASES = ("data", "to_device", "forward", "backward", "optimizer", "ema")
ARRAYS = ("x0", "alpha", "sigma", "embedding", "eps", "classes", "weight")
FIRST, WARM = 5, 2
NOTES = {
    "data": "made in the caller's thread here; in training by a thread, while a step computes",
    "to_device": "measured apart, by placing the arrays once more; taken off forward",
    "compile": "seconds in all, over the warm-up: the first steps above a usual one",
}


@dataclass
class _Clock:
    """Seconds of each phase of one step; `mark` ends a phase."""

    wait: Callable[[], None]
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.wait()
        self.last = time.perf_counter()

    def mark(self, phase: str) -> None:
        self.wait()
        now = time.perf_counter()
        self.seconds[phase] = now - self.last
        self.last = time.perf_counter()


def split_step(
    backend: Backend, learner: Learner, make: Callable[[], Batch], lr: float
) -> dict[str, float]:
    """Seconds of each phase of one optimizer step; `ema` is absent if it is fused."""
    clock = _Clock(backend.synchronize)
    batch = make()
    clock.mark("data")
    arrays = [getattr(batch, name) for name in ARRAYS] + list(batch.masks or ())
    placed = [backend.array(values) for values in arrays if values is not None]
    clock.mark("to_device")
    del placed
    loss = learner.loss(batch)
    clock.mark("forward")
    gradients = learner.differentiate(loss)
    clock.mark("backward")
    learner.update(gradients, lr, clock.mark)
    seconds = clock.seconds
    seconds["forward"] = max(0.0, seconds["forward"] - seconds["to_device"])
    return seconds


def whole_step(backend: Backend, learner: Learner, batch: Batch, lr: float) -> float:
    """Seconds of the same step left whole, synchronised at its two ends."""
    backend.synchronize()
    began = time.perf_counter()
    learner.step(batch, lr)
    backend.synchronize()
    return time.perf_counter() - began


def profile(
    backend: Backend, learner: Learner, batches: Batches, steps: int, lr: float, first: int = 1
) -> dict[str, Any]:
    """Run `steps` split and as many whole steps, alternating, after a warm-up.

    Args:
        first: the 1-based step whose batch comes first.

    Returns:
        The measured part of the record; see docs/profiling.md.
    """
    began = time.perf_counter()
    step = first
    learner.captured = None  # a replayed step has no phases; both kinds are launched alike

    def make() -> Batch:
        nonlocal step
        step += 1
        return batches.batch(step - 1)

    before = backend.counters().get("kernels", 0.0)
    firsts = [whole_step(backend, learner, make(), lr) for _ in range(FIRST)]
    warm = [_total(split_step(backend, learner, make, lr)) for _ in range(WARM)]
    kernels = backend.counters().get("kernels", 0.0) - before
    timeline: list[dict[str, Any]] = []
    whole: list[float] = []
    memory = [_memory(backend, 0, began)]
    for pair in range(steps):
        for split in (True, False) if pair % 2 == 0 else (False, True):
            if split:
                timeline.append({"step": step, **split_step(backend, learner, make, lr)})
            else:
                whole.append(whole_step(backend, learner, make(), lr))
        memory.append(_memory(backend, step - 1, began))
    usual = float(np.median(whole))
    compiled = sum(max(0.0, s - usual) for s in firsts + warm)
    split_s = [_total(row) for row in timeline]
    return {
        "steps": steps,
        "phases": _phases(timeline, compiled, int(kernels)),
        "split": _spread(split_s),
        "unsplit": _spread(whole),
        "overhead": overhead(split_s, whole),
        "first_steps_s": firsts,
        "memory": memory,
        "timeline": timeline,
    }


def overhead(split: list[float], whole: list[float]) -> dict[str, float | None]:
    """The median of split / whole over the pairs, and its 95 % interval.

    `low` and `high` are None for fewer than six pairs, which cannot have such an interval.
    """
    ratios = [s / w for s, w in zip(split, whole, strict=True)]
    low, high = median_interval(ratios) or (None, None)
    return {"ratio": float(np.median(ratios)), "low": low, "high": high}


def _total(row: dict[str, Any]) -> float:
    """A split step's seconds comparable to an unsplit one's: no data, and one copy, not two."""
    return float(sum(row.get(name, 0.0) for name in PHASES if name != "data"))


def _phases(rows: list[dict[str, Any]], compiled: float, kernels: int) -> list[dict[str, Any]]:
    total = float(np.median([_total(row) for row in rows]))
    found: list[dict[str, Any]] = []
    for name in PHASES:
        values = [row[name] for row in rows if name in row]
        phase: dict[str, Any] = {"name": name, "median_s": None, "p5_s": None, "p95_s": None}
        if values:
            phase |= _spread(values)
        share = phase["median_s"] / total if values and name != "data" else None
        rest = {"share": share, "note": NOTES.get(name, ""), "fused": not values}
        found.append({**phase, **rest, "kernels": None})
    last = {"name": "compile", "median_s": compiled, "p5_s": None, "p95_s": None, "share": None}
    last |= {"note": NOTES["compile"], "fused": False, "kernels": kernels or None}
    return [*found, last]


def _spread(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, (5, 50, 95))
    return {"median_s": float(middle), "p5_s": float(low), "p95_s": float(high)}


def _memory(backend: Backend, step: int, began: float) -> dict[str, Any]:
    counted = backend.counters()
    keys = ("allocated_mb", "reserved_mb", "live_vars", "live_ops")
    return {
        "step": step,
        "seconds": time.perf_counter() - began,
        "rss_mb": psutil.Process().memory_info().rss / 2**20,
        **{key: counted.get(key) for key in keys},
    }
