"""What is timed, in a process of its own for each contender: a turn of training or of sampling.

    start(job) -> loaded;   turn(k) -> seconds, memory;   finish() -> what it computed

A turn is `job.steps` steps with the device synchronised at both ends. The panels are timed as
`diptych train` and `diptych sample` run them: batches made ahead in a thread, losses read late, on
a CPU one synchronisation a step. No framework is imported before `start` knows which.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks import sizes
from diptych import backends
from diptych.config.load import Config
from diptych.diffusion.schedule import make_schedule
from diptych.network.plan import Plan, initial_weights, make_plan, parameter_table, time_embedding
from diptych.rng import normal
from diptych.sampling.engine import Engine
from diptych.sampling.sampler import make_sampler
from diptych.training.batches import Batches
from diptych.training.prefetch import Prefetch
from diptych.types import Float32

CONTENDERS = ("torch", "jittor", "diffusers")
TASKS = ("training", "sampling")
SEED = 0


@dataclass(frozen=True)
class Job:
    """What one contender's process is to do.

    Attributes:
        contender: one of CONTENDERS.
        task: one of TASKS.
        config: network and training settings; `train.batch_size` is the batch of either task.
        steps: optimizer steps of a turn of training, network calls of a turn of sampling.
        device: `cpu`, `cuda` or `cuda:INDEX`.
    """

    contender: str
    task: str
    config: Config
    steps: int
    device: str

    @property
    def batch(self) -> int:
        return self.config.train.batch_size

    def weights(self, plan: Plan) -> dict[str, Float32]:
        """The weights that every contender starts from, in the official names."""
        return initial_weights(plan, SEED)

    def noise(self) -> Float32:
        """The noise that every contender's sampling starts from, (batch, C, H, W)."""
        data = self.config.data
        shape = (self.batch, data.channels, data.image_size, data.image_size)
        return normal(SEED, "initial_noise", shape)

    def question(self) -> tuple[Float32, npt.NDArray[np.int64]]:
        """Two noisy images and their timesteps, to ask every network the same."""
        return self.noise()[:2], np.array([10, 900])[: self.batch]


@dataclass(frozen=True)
class Memory:
    """Megabytes: now, and the most so far."""

    now: float
    peak: float


@dataclass(frozen=True)
class Turn:
    """Seconds that a turn took, processor seconds of all its threads, and memory after it."""

    seconds: float
    cpu_seconds: float
    memory: Memory


@dataclass(frozen=True)
class Loaded:
    """A contender before its first turn."""

    parameters: int
    facts: dict[str, Any]
    memory: Memory


class Contender(Protocol):
    """One task of one contender, in its own process."""

    parameters: int

    def turn(self, k: int) -> None:
        """The k-th turn from 0, until the device is done."""

    def answer(self) -> Float32:
        """What must agree between contenders: a fresh network's prediction, or the images drawn."""

    def memory(self) -> Memory:
        """Of the process on a CPU, of the framework's allocator on a GPU."""

    def facts(self) -> dict[str, Any]:
        """Versions, device and threads."""


class PanelTraining:
    """Steps of a panel's learner, as in `diptych.train`."""

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
    """Deterministic DDIM chains of a panel, as in `diptych.sampling.sampler`."""

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
    """Numbers in a panel's weights: it refuses to build with any other shapes."""
    return sum(int(np.prod(each.shape)) for each in parameter_table(plan).values())


def check_finite(losses: list[float]) -> None:
    """A run that diverged is no measurement."""
    if not np.isfinite(losses).all():
        raise RuntimeError(f"a loss is not finite: {losses}")


def panel_memory(backend: backends.Backend) -> Memory:
    if backend.device == "cpu":
        return process_memory()
    return Memory(backend.memory_mb(), backend.memory_mb())


def process_memory() -> Memory:
    """Resident megabytes of this process, now and at most; outside Linux, now stands for both."""
    now = psutil.Process().memory_info().rss / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")]
    return Memory(now, max([now, *peaks]))


_live: list[Contender] = []


def start(job: Job) -> Loaded:
    """Import the framework, build and load the network; in the contender's process."""
    made: Contender
    if job.contender == "diffusers":
        from benchmarks import opponent

        made = opponent.make(job)
    else:
        made = PanelTraining(job) if job.task == "training" else PanelSampling(job)
    _live[:] = [made]
    return Loaded(made.parameters, made.facts(), made.memory())


def turn(k: int) -> Turn:
    """The k-th turn, timed."""
    [contender] = _live
    began, began_cpu = time.perf_counter(), time.process_time()
    contender.turn(k)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
    return Turn(seconds, cpu_seconds, contender.memory())


def finish() -> Float32:
    """The contender's answer, after all its turns."""
    [contender] = _live
    return contender.answer()
