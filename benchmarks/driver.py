"""Rounds of turns: one process per contender, one contender at a time, in alternating order.

    round 0: A B C    round 1: C B A    round 2: A B C ...

Contenders are only compared within a round, minutes apart rather than hours: a machine's speed
drifts, and a drift that is slow compared with a round cancels in the ratio. The first rounds are
dropped because they compile kernels, fill caches and grow the heap.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from benchmarks import contenders
from benchmarks.job import ENGINES, KNOWN, Job, Loaded, Turn
from benchmarks.sizes import Amount, Size
from diptych import __version__
from diptych.errors import MachineError, UserError
from diptych.machine.processor import cores, processor_name
from diptych.types import Float32


@dataclass(frozen=True)
class Plan:
    """A benchmark to run: `amount` of a task at a size, after `warmup` dropped rounds."""

    task: str
    size: Size
    amount: Amount
    warmup: int
    contenders: tuple[str, ...]
    device: str
    threads: int
    heap: str = "own"


@dataclass(frozen=True)
class Outcome:
    """A finished plan, by contender; turns[round] excludes the warm-up."""

    plan: Plan
    loaded: dict[str, Loaded]
    turns: dict[str, list[Turn]]
    answers: dict[str, Float32]
    load_before: float
    load_after: float


class Process:
    """A contender in its own process, which loads only one framework."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def call(self, function: Any, *args: Any) -> Any:
        """Call a function in the contender's process and return its result."""
        try:
            return self.pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise MachineError(
                f"{self.job.contender}: its process died (out of memory?); try a smaller --batch"
            ) from error

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


def run(plan: Plan) -> Outcome:
    """Run a plan; progress goes to stderr."""
    config = plan.size.config
    train = config.train.model_copy(update={"batch_size": plan.amount.batch})
    config = config.model_copy(update={"train": train})
    with environment(plan.threads, plan.heap), ExitStack() as stack:
        processes = {}
        for name in plan.contenders:
            job = Job(name, plan.task, config, plan.amount.steps, plan.device)
            processes[name] = Process(job)
            stack.callback(processes[name].close)
        before = psutil.getloadavg()[0]
        loaded = {n: p.call(contenders.start, p.job) for n, p in processes.items()}
        turns = _turns(plan, processes)
        after = psutil.getloadavg()[0]
        answers = {n: p.call(contenders.finish) for n, p in processes.items()}
    return Outcome(plan, loaded, turns, answers, before, after)


def _turns(plan: Plan, processes: dict[str, Process]) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in processes}
    with tqdm(order(plan), desc=f"{plan.task} {plan.size.name}", unit="turn") as bar:
        for k, name in bar:
            turns[name].append(processes[name].call(contenders.turn, k))
    return {name: each[plan.warmup :] for name, each in turns.items()}


def order(plan: Plan) -> list[tuple[int, str]]:
    """(round, contender) in the order of the turns, including the warm-up."""
    rounds = range(plan.warmup + plan.amount.rounds)
    return [(k, name) for k in rounds for name in plan.contenders[:: -1 if k % 2 else 1]]


@contextmanager
def environment(threads: int, heap: str = "own") -> Iterator[None]:
    """Set the variables that OpenMP and glibc read on loading; the contenders inherit them.

    Args:
        heap: "own": each contender's own allocator; "kept": all keep freed memory, as the PyTorch
            panel does by itself (`diptych.backends.torch.heap`).
    """
    wanted = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
    if heap == "kept":
        wanted |= {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def machine() -> dict[str, Any]:
    """Facts on which the numbers depend in addition to the plan."""
    return {
        "cpu": processor_name(),
        "cores": cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "diptych": __version__,
    }


def check(names: Sequence[str], task: str) -> tuple[str, ...]:
    """The requested contenders without duplicates.

    Raises:
        UserError: one is unknown, or an engine is to train.
    """
    for name in names:
        if name not in KNOWN:
            raise UserError(f"contender '{name}' is not known; known: {', '.join(KNOWN)}")
        if task == "training" and name in ENGINES:
            raise UserError(f"contender '{name}' only predicts; leave it out of training")
    return tuple(dict.fromkeys(names))
