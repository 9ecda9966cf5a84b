"""What a panel must provide: five small jobs, and nothing that both panels could share.

A backend turns host arrays into its own and back, builds a network and a learner from
(plan, weights), runs a network without gradients, and waits for its device. Weights cross as
`dict[str, numpy.ndarray]` alone; schedules, noise, batches and solvers stay on the host side.

A panel is loaded by `diptych.backends.load`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from diptych.config.load import TrainConfig
from diptych.network.own import AnyPlan
from diptych.types import Array, Float32, Int64, Pixels, Weights


@dataclass(frozen=True)
class Batch:
    """Everything that one training step consumes, as host arrays.

    Attributes:
        step: 1-based number of the optimizer step.
        epoch: 0-based epoch that the step belongs to.
        x0: clean images, (B, C, H, W) float32 in [-1, 1].
        t: timesteps, (B,) int64.
        alpha, sigma: scales at t, (B, 1, 1, 1) float32.
        embedding: sinusoidal embedding of t, (B, ch) float32; for a network of the user's own
            t itself.
        eps: noise, shaped as x0; None where the device draws it (`train.noise: device`).
        masks: dropout's keep masks in the order of `Plan.blocks`, uint8; None likewise, or
            where the rate is 0.
        labels: classes after label dropout, (B,) int64, K for 'no class'; None without classes.
        classes: their rows of the identity, (B, K + 1) float32; None likewise.
        weight: of each image's loss, (B, 1, 1, 1) float32; None where all weigh 1.
    """

    step: int
    epoch: int
    x0: Float32
    t: Int64
    alpha: Float32
    sigma: Float32
    embedding: Float32 | Int64
    eps: Float32 | None
    masks: tuple[Pixels, ...] | None
    labels: Int64 | None = None
    classes: Float32 | None = None
    weight: Float32 | None = None


@dataclass(frozen=True)
class State:
    """A learner's whole state; each of the four holds one array per weight."""

    step: int
    raw: Weights
    ema: Weights
    adam_m: Weights
    adam_v: Weights


def unmarked(phase: str) -> None:
    """Told of the end of a phase of a step, does nothing: a step that nobody profiles."""


class Learner(Protocol):
    """A network in training: loss, gradients, clipping, Adam, EMA."""

    def step(self, batch: Batch, lr: float) -> tuple[Any, Any]:
        """One optimizer step; loss and gradient norm as device scalars, to be read later."""

    def loss(self, batch: Batch) -> Any:
        """The first part of a step: the loss as a device scalar with its graph."""

    def differentiate(self, loss: Any) -> list[Any]:
        """The second: the gradients of `loss`, one for each weight, on the device."""

    def update(
        self, gradients: list[Any], lr: float, mark: Callable[[str], None] = unmarked
    ) -> Any:
        """The third: clipping, Adam and EMA; gives the norm. See `adam_step` for `mark`."""

    def gradients(self, batch: Batch) -> tuple[float, Weights]:
        """Loss and the unclipped gradients of a batch; nothing is updated."""

    def state(self) -> State:
        """A copy of the whole state on the host."""

    def restore(self, state: State) -> None:
        """Continue exactly from `state`."""


class Backend(Protocol):
    """One panel on one device."""

    name: str
    device: str

    def array(self, values: Array) -> Any:
        """A host array on the device."""

    def numpy(self, values: Any) -> Array:
        """A device array on the host."""

    def scalar(self, value: Any) -> float:
        """A device scalar as a Python float; waits for it."""

    def network(self, plan: AnyPlan, weights: Weights | None) -> Any:
        """A network for prediction only, with exactly these weights; None, of a network of the
        user's own alone: with those that it has."""

    def weights(self, network: Any) -> Weights:
        """Host copies of a network's weights by name."""

    def feature_network(self, name: str, arrays: Weights) -> Any:
        """A network of `diptych.evaluation.features` by name, with these folded arrays."""

    def predict(self, network: Any, x: Any, embedding: Any, classes: Any = None) -> Any:
        """The network's output for (B, C, H, W) and embeddings (B or 1, ch), no gradients; for a
        network with K classes also (B or 1, K + 1), see `diptych.diffusion.classes`."""

    def twice(self, x: Any) -> Any:
        """The rows of an array, and then all of them again."""

    def learner(
        self, plan: AnyPlan, weights: Weights | None, train: TrainConfig, seed: int
    ) -> Learner:
        """A learner that starts from these weights, with an EMA equal to them; None as above."""

    def clip(self, x: Any) -> Any:
        """The array limited to [-1, 1]."""

    def submit(self, x: Any) -> None:
        """Hand the work behind `x` to the device without waiting: lazy frameworks pile it up."""

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def memory_mb(self) -> float:
        """Memory: the process's resident set on a CPU, the device allocator's peak on a GPU."""

    def counters(self) -> dict[str, float]:
        """What the framework counts of itself; a key it does not count is absent.

        allocated_mb, reserved_mb: in use by arrays, and held by the framework's allocator.
        live_vars, live_ops: arrays and operators in the lazy graph.
        kernels: compiled kernels that the process has loaded.
        """

    def describe(self) -> dict[str, Any]:
        """Framework version, device name and threads, for run records."""
