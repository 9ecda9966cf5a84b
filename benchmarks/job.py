"""The job of a contender and the protocol of its answers, shared by all contenders."""

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

CONTENDERS = ("torch", "jittor", "diffusers")  # timed unless others are named
COMPILED = "diffusers-compiled"  # by torch.compile, whose seconds fall into the warm-up
ENGINES = ("onnx", "openvino")  # sampling alone
KNOWN = (*CONTENDERS, COMPILED, *ENGINES)
TASKS = ("training", "sampling")
SEED = 0


@dataclass(frozen=True)
class Job:
    """The job of one contender's process.

    Attributes:
        contender: one of KNOWN.
        task: one of TASKS.
        config: network and training settings; `train.batch_size` is the batch of either task.
        steps: optimizer steps per turn of training, network calls per turn of sampling.
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
        """The initial weights of every contender, by official name."""
        return initial_weights(plan, SEED)

    def noise(self) -> Float32:
        """The initial noise of every contender's sampling, (batch, C, H, W) float32."""
        shape = (self.batch, *self.config.data.shape)
        return normal(SEED, "initial_noise", shape)

    def question(self) -> tuple[Float32, Int64]:
        """Two noisy images and their timesteps, the same input for every network."""
        return self.noise()[:2], np.array([10, 900])[: self.batch]


@dataclass(frozen=True)
class Memory:
    """Memory in megabytes: now, and the peak so far."""

    now: float
    peak: float


@dataclass(frozen=True)
class Turn:
    """Seconds of a turn, processor seconds of all its threads, and memory after it."""

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
        """Run the k-th turn, counted from 0, and wait for the device."""

    def answer(self) -> Float32:
        """The values that must agree: a fresh network's prediction, or the generated images."""

    def memory(self) -> Memory:
        """Memory of the process on a CPU, of the framework's allocator on a GPU."""

    def facts(self) -> dict[str, Any]:
        """Versions, device and threads."""


def check_finite(losses: list[float]) -> None:
    """Refuse a run that diverged: it is not a measurement."""
    if not np.isfinite(losses).all():
        raise RuntimeError(f"a loss is not finite: {losses}")


def process_memory() -> Memory:
    """Resident memory of this process in MB, now and at peak; outside Linux, both are the same."""
    now = psutil.Process().memory_info().rss / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    peaks = [float(line.split()[1]) / 2**10 for line in lines if line.startswith("VmHWM:")]
    return Memory(now, max([now, *peaks]))
