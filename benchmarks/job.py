"""The job of one contender, and what each contender must answer: shared by all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from diptych.config.load import Config
from diptych.network.parameters import initial_weights
from diptych.network.plan import Plan
from diptych.rng import normal
from diptych.types import Float32, Int64, Weights

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

    def weights(self, plan: Plan) -> Weights:
        """The weights that every contender starts from, in the official names."""
        return initial_weights(plan, SEED)

    def noise(self) -> Float32:
        """The noise that every contender's sampling starts from, (batch, C, H, W)."""
        data = self.config.data
        shape = (self.batch, data.channels, data.image_size, data.image_size)
        return normal(SEED, "initial_noise", shape)

    def question(self) -> tuple[Float32, Int64]:
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


def check_finite(losses: list[float]) -> None:
    """A run that diverged is no measurement."""
    if not np.isfinite(losses).all():
        raise RuntimeError(f"a loss is not finite: {losses}")


def process_memory() -> Memory:
    """Resident megabytes of this process, now and at most; outside Linux, now stands for both."""
    now = psutil.Process().memory_info().rss / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")]
    return Memory(now, max([now, *peaks]))
