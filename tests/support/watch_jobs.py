"""Trainings with a planted disturbance, as importable functions for a backend's process."""

from __future__ import annotations

import errno
import gc
import logging.handlers
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

from diptych import backends
from diptych.config.load import Config
from diptych.runs import checkpoint
from diptych.training.batches import Batches
from diptych.training.callbacks.journal import read_rows
from diptych.training.callbacks.usual import Recording
from diptych.training.loop import train


def disturbed(name: str, config: Config, run: Path, faults: dict[int, str], seconds: float) -> None:
    """Train with some steps slowed by `seconds`: in the data, by gc, or by sleeping."""
    backend = backends.load(name, "cpu")
    learner_class: Any = type(backend.learner(*_fresh(config)))
    make, step = Batches.batch, learner_class.step

    def slow_batch(self: Batches, number: int, *ranks: Any) -> Any:
        if faults.get(number) == "data":
            time.sleep(seconds)
        return make(self, number, *ranks)

    def slow_step(self: Any, batch: Any, lr: float) -> Any:
        if faults.get(batch.step) == "gc":
            _collect_for(seconds)
        if faults.get(batch.step) == "sleep":
            time.sleep(seconds)
        return step(self, batch, lr)

    Batches.batch, learner_class.step = slow_batch, slow_step
    try:
        train(config, run, name, device="cpu", progress=False)
    finally:
        Batches.batch, learner_class.step = make, step


def _fresh(config: Config) -> tuple[Any, ...]:
    from diptych.network.parameters import initial_weights
    from diptych.network.plan import make_plan

    plan = make_plan(config)
    return plan, initial_weights(plan, 0), config.train, 0


def _collect_for(seconds: float) -> None:
    """Run full collections over many objects for `seconds`."""
    crowd = [[i] for i in range(300_000)]
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        gc.collect()
    del crowd


def profiled(name: str, config: Config, steps: int) -> dict[str, Any]:
    """A profile of a model with fresh weights."""
    from diptych.data import load_dataset
    from diptych.network.plan import make_plan
    from diptych.profiling import profile

    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(*_fresh(config))
    images = load_dataset("mnist-10k", image_size=config.data.image_size).images
    return profile(backend, learner, Batches(config, plan, images), steps, 1e-3)


def split_and_whole(name: str, config: Config, steps: int) -> tuple[Any, Any]:
    """The weights after `steps` split steps, and after as many whole steps."""
    from diptych.data import load_dataset
    from diptych.network.plan import make_plan
    from diptych.profiling.split import split_step

    backend, plan = backends.load(name, "cpu"), make_plan(config)
    images = load_dataset("mnist-10k", image_size=config.data.image_size).images
    source = Batches(config, plan, images)
    split, whole = backend.learner(*_fresh(config)), backend.learner(*_fresh(config))
    for step in range(1, steps + 1):
        split_step(backend, split, lambda step=step: source.batch(step), 1e-3)  # type: ignore[misc]
        whole.step(source.batch(step), 1e-3)
    return split.state(), whole.state()


def trained_with_and_without(name: str, config: Config, folder: Path) -> tuple[Any, Any]:
    """The journal's rows of a training that is observed in every way, and of one that is not."""
    for word, recording in (("on", Recording(True, 3)), ("off", Recording(False, 0))):
        train(config, folder / word, name, device="cpu", progress=False, recording=recording)
    on, off = (read_rows(folder / word / "metrics.jsonl") for word in ("on", "off"))
    return on, off


class _Failing:
    """A file whose `number`-th write, flush or close fails: the disk is full for a moment."""

    calls = number = 0

    def __init__(self, path: Path, mode: str) -> None:
        self.file = real_open(path, mode)

    def __getattr__(self, name: str) -> Any:
        def act(*given: Any) -> Any:
            _Failing.calls += 1
            if _Failing.calls == _Failing.number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return getattr(self.file, name)(*given)

        return act


real_open = Path.open


def events_failing(name: str, config: Config, folder: Path) -> list[dict[str, Any]]:
    """Trainings in which each use of the event file fails in turn; the last one is undisturbed."""
    found = []
    for number in count(1):
        _Failing.calls, _Failing.number = 0, number
        handler = logging.handlers.BufferingHandler(10**6)
        logging.getLogger("diptych").addHandler(handler)
        run = folder / str(number)
        opened = lambda self, mode="r", *given, **named: (  # noqa: E731
            _Failing(self, mode)
            if "tfevents" in self.name
            else real_open(self, mode, *given, **named)
        )
        with mock.patch.object(Path, "open", opened):
            train(config, run, name, device="cpu", progress=False)
        logging.getLogger("diptych").removeHandler(handler)
        found.append(
            {
                "lines": [record.getMessage() for record in handler.buffer],
                "losses": [row["loss"] for row in read_rows(run / "metrics.jsonl")],
                "files": checkpoint.read_manifest(checkpoint.latest(run))["files"],
                "threads": [t.name for t in threading.enumerate() if "Writer" in type(t).__name__],
            }
        )
        if _Failing.calls < number:
            return found
    raise AssertionError


def computed_layers(name: str, config: Config) -> dict[str, tuple[tuple[int, ...], set[str]]]:
    """Of each innermost module of the running network: its output's shape without the batch, and
    the modules whose outputs it is given as they are."""
    import numpy as np

    from diptych.align.process.panels import Panel
    from diptych.network.plan import make_plan

    panel, plan = Panel(name), make_plan(config)
    network = panel.backend.network(plan, _fresh(config)[1])
    kept: list[tuple[str, list[Any], Any]] = []  # every value is kept, so that ids stay its own
    x, t = np.zeros((2, *plan.shape), np.float32), plan.times([5, 6])
    given = [panel.put(x), panel.put(t)]
    if plan.num_classes:
        given += [None, panel.put(np.eye(plan.num_classes + 1, dtype=np.float32)[:2])]
    with (
        panel.no_grad(),
        panel.watch(network, lambda path, args, y: kept.append((path, list(args), y))),
    ):
        network(*given)
    leaves = {path for path, *_ in kept if not any(p.startswith(f"{path}.") for p, *_ in kept)}
    made = {id(y): path for path, _, y in kept if path in leaves}
    return {
        path: (tuple(y.shape[1:]), {made[id(arg)] for arg in args if id(arg) in made})
        for path, args, y in kept
        if path in leaves
    }
