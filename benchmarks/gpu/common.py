"""The size, the clock and the tools that the pieces share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from diptych.config.load import Config, load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import Plan, make_plan
from diptych.types import Pixels, Weights

Result = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Device of the pieces; a rehearsal is small and on a CPU."""

    device: str

    @property
    def on_gpu(self) -> bool:
        """True on a GPU."""
        return self.device != "cpu"

    def config(self, preset: str = "cifar10", *changes: str) -> Config:
        """The preset, small in a rehearsal."""
        small = () if self.on_gpu else ("model.ch=32", "train.batch_size=2")
        return load_config(preset, [*small, *changes])

    def network(self, preset: str = "cifar10", *changes: str) -> tuple[Config, Plan, Weights]:
        """Config, plan and keyed weights."""
        config = self.config(preset, *changes)
        plan = make_plan(config)
        return config, plan, initial_weights(plan, 0)

    def images(self, config: Config) -> Pixels:
        """Pictures of noise: what a step costs does not depend on them."""
        shape = (4096 if self.on_gpu else 256, *config.data.shape)
        return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    def wait(self) -> None:
        """Until the device is idle."""
        if self.on_gpu:
            torch.cuda.synchronize()


def timed(
    place: Place, step: Callable[[int], Any], warm: int = 5, reps: int = 40, seconds: float = 2.5
) -> Result:
    """Seconds of a call: quantiles by the device's events, and the wall time of all of them."""
    if not place.on_gpu:
        warm, reps = 1, 2
    for i in range(warm):
        step(i)
    place.wait()
    marks, began = [mark(place)], time.perf_counter()
    for i in range(reps):
        step(warm + i)
        marks.append(mark(place))
        if time.perf_counter() - began > seconds:
            break
    place.wait()
    wall = (time.perf_counter() - began) / (len(marks) - 1)
    times = [a.elapsed_time(b) / 1e3 if place.on_gpu else b - a for a, b in pairwise(marks)]
    low, middle, high = (float(q) for q in np.quantile(times, [0.1, 0.5, 0.9]))
    return {"p10_s": low, "p50_s": middle, "p90_s": high, "wall_s": wall, "reps": len(times)}


def mark(place: Place) -> Any:
    """A moment on the device."""
    if not place.on_gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def speed(place: Place, make: Callable[[], Callable[[int], Any]], images: int) -> Result:
    """Images per second of the step that `make` makes, its first call and its memory."""
    if place.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step = make()
    step(0)
    place.wait()
    first = time.perf_counter() - began
    found = timed(place, step)
    found |= {"img_per_s": images / max(found["p50_s"], found["wall_s"]), "first_s": first}
    if place.on_gpu:
        found["peak_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def relative(found: ArrayLike, expected: ArrayLike) -> float:
    """|found - expected| / |expected|, in float64."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300))


def flat(weights: Weights) -> ArrayLike:
    """All weights in one row."""
    return np.concatenate([array.ravel() for array in weights.values()])
