"""The timed contenders, each in its own process: turns of training or of sampling.

    start(job) -> loaded;   turn(k) -> seconds, memory;   finish() -> the answer

A turn is `job.steps` steps with the device synchronised at both ends. The backends are timed as
`diptych train` and `diptych sample` run them: batches made ahead in a thread, losses read late, and
on a CPU one synchronisation per step. No framework is imported before `start`.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import sizes
from benchmarks.job import (
    COMPILED,
    SEED,
    Contender,
    Job,
    Loaded,
    Memory,
    Turn,
    check_finite,
    process_memory,
)
from diptych import backends
from diptych.diffusion.schedule import make_schedule
from diptych.network.embedding import time_embedding
from diptych.network.parameters import parameter_table
from diptych.network.plan import Plan, make_plan
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.prefetch import Prefetch
from diptych.types import Float32


class PanelTraining:
    """Steps of a backend's learner, as in `diptych.train`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.backend = backends.load(job.contender, job.device)
        self.plan = make_plan(job.config)
        self.parameters = count(self.plan)
        self.batches = Batches(job.config, self.plan, sizes.images(job.config))
        self.learner = self.backend.learner(
            self.plan, job.weights(self.plan), job.config.train, SEED
        )

    def turn(self, k: int) -> None:
        first, losses = k * self.job.steps + 1, []
        stop = first + self.job.steps
        with Prefetch(self.batches.batch, first, stop) as ahead:
            for step in range(first, stop):
                loss, _norm = self.learner.step(ahead.get(step), self.job.config.train.lr)
                losses.append(loss)
                if self.backend.device == "cpu":
                    self.backend.synchronize()
        check_finite([self.backend.scalar(loss) for loss in losses])
        self.backend.synchronize()

    def answer(self) -> Float32:
        x, t = self.job.question()
        network = self.backend.network(self.plan, self.job.weights(self.plan))
        embedding = self.backend.array(time_embedding(t, self.plan.ch))
        return self.backend.numpy(self.backend.predict(network, self.backend.array(x), embedding))

    def memory(self) -> Memory:
        return panel_memory(self.backend)

    def facts(self) -> dict[str, Any]:
        return self.backend.describe()


class PanelSampling:
    """Deterministic DDIM chains of a backend, as in `diptych.sampling.sampler`."""

    def __init__(self, job: Job) -> None:
        self.backend = backends.load(job.contender, job.device)
        plan = make_plan(job.config)
        self.parameters = count(plan)
        schedule = make_schedule(job.config.diffusion)
        network = self.backend.network(plan, job.weights(plan))
        self.engine = Engine(self.backend, network, plan, schedule)
        self.sampler = make_sampler("ddim", job.steps, timesteps=schedule.timesteps)
        self.start = job.noise()
        self.images = self.start

    def turn(self, k: int) -> None:
        self.images = self.engine.draw(self.sampler, range(len(self.start)), SEED, self.start)

    def answer(self) -> Float32:
        return self.images

    def memory(self) -> Memory:
        return panel_memory(self.backend)

    def facts(self) -> dict[str, Any]:
        return self.backend.describe()


def count(plan: Plan) -> int:
    """Number of parameters of a backend's network, which refuses any other shapes."""
    return sum(int(np.prod(each.shape)) for each in parameter_table(plan).values())


def panel_memory(backend: backends.Backend) -> Memory:
    if backend.device == "cpu":
        return process_memory()
    return Memory(backend.memory_mb(), backend.memory_mb())


_live: list[Contender] = []


def start(job: Job) -> Loaded:
    """Import the framework, build and load the network; runs in the contender's process."""
    made: Contender
    if job.contender in ("diffusers", COMPILED):
        from benchmarks import opponent

        made = opponent.make(job)
    else:
        made = PanelTraining(job) if job.task == "training" else PanelSampling(job)
    _live[:] = [made]
    return Loaded(made.parameters, made.facts(), made.memory())


def turn(k: int) -> Turn:
    """Run and time the k-th turn."""
    [contender] = _live
    began, began_cpu = time.perf_counter(), time.process_time()
    contender.turn(k)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Turn(seconds, cpu_seconds, contender.memory())


def noise(job: Job, repeats: int) -> list[float]:
    """Seconds of making a training batch with its noise and masks on the device, each time anew."""
    training = PanelTraining(job)
    found = []
    for step in range(1, repeats + 3):  # two warm up
        training.backend.synchronize()
        began = time.perf_counter()
        inputs = training.learner.inputs(training.batches.batch(step))
        training.backend.synchronize()
        found.append(time.perf_counter() - began)
        del inputs
    return found[2:]


def finish() -> Float32:
    """The contender's answer, after all its turns."""
    [contender] = _live
    return contender.answer()
