"""The loops that the experiments measure, one per process.

    python -m tools.experiments.loops EXPERIMENT BACKEND      the measurement as JSON on stdout

Both processor and wall seconds are given: a busy machine only stretches the latter.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from diptych import backends
from diptych.backends.protocol import Backend, Learner
from diptych.config.load import load_config
from diptych.data import load_dataset
from diptych.diffusion.schedule import make_schedule
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches

READ_EVERY = 6
Row = dict[str, Any]


class Bench:
    """A fresh `tiny` learner and its batches on a CPU."""

    def __init__(self, name: str, *changes: str) -> None:
        self.config = load_config("tiny", ["train.batch_size=32", *changes])
        self.plan = make_plan(self.config)
        self.backend: Backend = backends.load(name, "cpu")
        self.weights = initial_weights(self.plan, 0)
        self.learner: Learner = self.backend.learner(self.plan, self.weights, self.config.train, 0)
        images = load_dataset("mnist-10k", image_size=self.config.data.image_size).images
        self.batches = Batches(self.config, self.plan, images)
        self.at = 0

    def step(self) -> Any:
        """Run one step; return the loss without waiting for it."""
        self.at += 1
        return self.learner.step(self.batches.batch(self.at), 1e-3)[0]

    def timed(self, what: str, work: Callable[[], Any], wait: bool = True) -> Row:
        """Wall, processor and compiler seconds, and page faults, of `work`.

        In addition, the state after it: kernels loaded, and memory held by the allocator.
        """
        if wait:
            self.backend.synchronize()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        if wait:
            self.backend.synchronize()
        row: Row = {"what": what, "wall_s": time.perf_counter() - wall}
        row["cpu_s"] = time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        row["compiler_s"] = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        row["faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        counters = self.backend.counters()
        return row | {"kernels": counters.get("kernels"), "held_mb": counters.get("reserved_mb")}

    def engine(self) -> Engine:
        """A sampling engine with the initial weights."""
        network = self.backend.network(self.plan, self.weights)
        return Engine(self.backend, network, self.plan, make_schedule(self.config.diffusion))


def timers(name: str) -> Row:
    """Step times by a timer that does not wait (loss read every sixth step), and one that does."""
    bench = Bench(name)
    for _ in range(READ_EVERY):
        bench.backend.scalar(bench.step())
    bench.backend.synchronize()

    def hasty() -> None:
        loss = bench.step()
        if bench.at % READ_EVERY == 0:
            bench.backend.scalar(loss)

    unwaited = [bench.timed("step", hasty, wait=False) for _ in range(5 * READ_EVERY)]
    bench.backend.synchronize()
    waited = [bench.timed("step", bench.step) for _ in range(5 * READ_EVERY)]
    return {"read_every": READ_EVERY, "unwaited": unwaited, "waited": waited}


def kernels(name: str) -> Row:
    """Steps, then operations that a training first meets later, each three times."""
    bench = Bench(name)
    rows = [bench.timed("step", bench.step) for _ in range(4)]
    small = Bench(name, "train.batch_size=5")
    sampler, engine = make_sampler("ddim", 3), bench.engine()
    for _ in range(3):
        rows.append(bench.timed("smaller batch", small.step))
    for _ in range(3):
        rows.append(bench.timed("sampling", lambda: engine.draw(sampler, range(32), 0)))
    rows += [bench.timed("step again", bench.step) for _ in range(3)]
    return {"rows": rows}


def memory(name: str, variant: str, steps: int = 24) -> Row:
    """Memory and lazy graph after each step, for loops that do or do not let work pile up.

    Variants: `panel`, the backend's own loop; `kept losses`, losses whose graphs are never freed,
    with a wait at each step; `unread losses`, the same without waiting, read every twelfth step;
    `lazy average`, a second moving average that is never waited for; only the loss is read.
    """
    bench = Bench(name)
    raw = bench.learner.raw  # type: ignore[attr-defined]
    average = dict(raw)
    rows: list[Row] = []
    kept: list[Any] = []
    for _ in range(steps):
        loss = _unstopped(bench) if variant.endswith("losses") else bench.step()
        if variant == "lazy average":
            average = {key: 0.998 * value + 0.002 * raw[key] for key, value in average.items()}
            bench.backend.scalar(loss)
        if variant.endswith("losses"):
            kept.append(loss)
        if variant == "unread losses" and len(kept) == 12:
            kept = [bench.backend.scalar(each) for each in kept][:0]
        if variant in ("panel", "kept losses"):
            bench.backend.synchronize()
        rows.append({"step": bench.at, "rss_mb": _resident(), **bench.backend.counters()})
    del kept, average
    result: Row = {"variant": variant, "rows": rows}
    if name == "jittor":
        gc.collect()
        bench.backend.synchronize()
        before = bench.backend.counters()["reserved_mb"]
        sys.modules["jittor"].gc()
        result |= {"held_mb": before, "held_after_gc_mb": bench.backend.counters()["reserved_mb"]}
    return result


def _unstopped(bench: Bench) -> Any:
    """A step whose loss keeps its graph."""
    bench.at += 1
    loss = bench.learner.loss(bench.batches.batch(bench.at))
    bench.learner.update(bench.learner.differentiate(loss), 1e-3)
    return loss


def _resident() -> float:
    return float(psutil.Process().memory_info().rss / 2**20)


def sampling(name: str, variant: str, batches: int = 8) -> Row:
    """Seconds of each sampled batch of 32 images, 5 DDIM steps.

    Variants: `warm`, kernels in Jittor's cache; `cold`, an empty cache; `piled`, a chain that is
    not submitted step by step; `long`, like warm with twice as many batches.
    """
    bench = Bench(name)
    if variant == "piled":
        bench.backend.submit = lambda x: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        if variant == "cold" and name == "jittor":
            (Path(folder) / "jit").mkdir()
            sys.modules["jittor"].flags.cache_path = folder
        engine, sampler = bench.engine(), make_sampler("ddim", 5)
        rows = []
        for k in range(batches * (2 if variant == "long" else 1)):
            images = range(32 * k, 32 * k + 32)
            draw = partial(engine.draw, sampler, images, 0)
            rows.append(bench.timed("batch", draw))
    return {"variant": variant, "rows": rows}


def shared(name: str, spells: int | str = 5, batches: int | str = 4) -> Row:
    """Batches of 10 steps on one core, in spells: every second spell beside a busy process.

    The neighbour comes and goes, so other load on the machine affects both kinds of spell. Each row
    holds the processor seconds that the neighbour had in its time.
    """
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    bench = Bench(name)
    engine, sampler = bench.engine(), make_sampler("ddim", 10)
    engine.draw(sampler, range(32), 0)
    rows: list[Row] = []
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    watched = psutil.Process(neighbour.pid)
    try:
        for spell in range(int(spells)):
            neighbour.send_signal(signal.SIGCONT if spell % 2 else signal.SIGSTOP)
            for _ in range(int(batches)):
                before = watched.cpu_times().user
                images = range(32 * len(rows), 32 * len(rows) + 32)
                what = "beside" if spell % 2 else "alone"
                row = bench.timed(what, partial(engine.draw, sampler, images, 0))
                spent = watched.cpu_times().user - before
                rows.append({"spell": spell, **row, "neighbour_s": spent})
    finally:
        neighbour.kill()
        neighbour.wait()
    return {"rows": rows}


def main() -> None:
    """Run one experiment and print its numbers."""
    experiment, name, *rest = sys.argv[1:]
    found: dict[str, Callable[..., Row]] = {
        "timers": timers, "kernels": kernels, "memory": memory, "sampling": sampling,
        "shared": shared,
    }  # fmt: skip
    result = found[experiment](name, *rest)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
