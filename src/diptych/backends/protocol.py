"""Requirements of a backend: five small jobs, and nothing that both backends could share.

A backend converts host arrays to its own and back, builds a network and a learner from
(plan, weights), runs a network without gradients, and waits for its device. Weights are only passed
as `dict[str, numpy.ndarray]`; schedules, noise, batches and solvers stay on the host side.

`diptych.backends.load` loads a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from diptych.config.load import TrainConfig
from diptych.network.own import AnyPlan
from diptych.ranks import Ranks
from diptych.types import Array, Float32, Int64, Pixels, Weights


@dataclass(frozen=True)
class Batch:
    """The inputs of one training step, as host arrays.

    Attributes:
        step: 1-based number of the optimizer step.
        epoch: 0-based epoch that the step belongs to.
        x0: clean images, (B, C, H, W) float32 in [-1, 1].
        t: timesteps, (B,) int64.
        alpha, sigma: scales at t, (B, 1, 1, 1) float32.
        embedding: sinusoidal embedding of t, (B, ch) float32; for a user's own network, t itself.
        eps: noise, shaped as x0; None if the device draws it (`train.noise: keyed` or `device`).
        masks: dropout's keep masks in the order of `Plan.blocks`, uint8; None if the device draws
            them, or if the rate is 0.
        labels: classes after label dropout, (B,) int64, K for 'no class'; None without classes.
        classes: the labels as one-hot rows, (B, K + 1) float32; None without classes.
        weight: weight of each image's loss, (B, 1, 1, 1) float32; None if all weights are 1.
        part: (first, images): these B images are those from `first` on of a step's `images`, the
            others being on other ranks or in other micro-batches; None: these are all.
        micro: 0-based number of this micro-batch among those of this rank.
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
    part: tuple[int, int] | None = None
    micro: int = 0

    @property
    def count(self) -> int:
        """Images of the step on all ranks together: what a mean over the batch divides by."""
        return len(self.x0) if self.part is None else self.part[1]

    @property
    def rows(self) -> slice:
        """The place of these images among those of all ranks."""
        first = 0 if self.part is None else self.part[0]
        return slice(first, first + len(self.x0))

    def split(self, count: int) -> list[Batch]:
        """These images as `count` micro-batches in order, as even as possible; empty ones are left
        out. Each knows its rows, so its random draws are those of the whole."""
        if count == 1:
            return [self]
        images, first = len(self.x0), self.rows.start
        cuts = [(k * images // count, (k + 1) * images // count) for k in range(count)]
        return [self._cut(k, a, b, first) for k, (a, b) in enumerate(cuts) if b > a]

    def _cut(self, micro: int, a: int, b: int, first: int) -> Batch:
        def rows(values: Any) -> Any:
            return None if values is None else values[a:b]

        masks = None if self.masks is None else tuple(rows(mask) for mask in self.masks)
        return replace(
            self,
            x0=rows(self.x0),
            t=rows(self.t),
            alpha=rows(self.alpha),
            sigma=rows(self.sigma),
            embedding=rows(self.embedding),
            eps=rows(self.eps),
            masks=masks,
            labels=rows(self.labels),
            classes=rows(self.classes),
            weight=rows(self.weight),
            part=(first + a, self.count),
            micro=micro,
        )


@dataclass(frozen=True)
class State:
    """A learner's complete state; raw, ema, adam_m and adam_v hold one array per weight."""

    step: int
    raw: Weights
    ema: Weights
    adam_m: Weights
    adam_v: Weights


def unmarked(phase: str) -> None:
    """Ignore the end of a phase of a step: the default mark of a step without profiling."""


class Learner(Protocol):
    """A network in training: loss, gradients, clipping, Adam, EMA."""

    network: Any
    captured: Any  # replays the kernels of a step on a GPU; None: they are launched one by one

    def step(self, batch: Batch, lr: float) -> tuple[Any, Any]:
        """Take one optimizer step; return loss and gradient norm as unread device scalars.

        Both are those of the whole batch; with several ranks, each must take the step.
        """

    def loss(self, batch: Batch) -> Any:
        """First part of a step: the loss as a device scalar with its graph; of a batch that is a
        part, the part's share."""

    def differentiate(self, loss: Any) -> list[Any]:
        """Second part of a step: the gradients of `loss`, one per weight, on the device."""

    def update(
        self, gradients: list[Any], lr: float, mark: Callable[[str], None] = unmarked
    ) -> Any:
        """Third part of a step: clipping, Adam, EMA; return the norm. `mark` as in `adam_step`."""

    def gradients(self, batch: Batch) -> tuple[float, Weights]:
        """Loss and unclipped gradients of a batch; nothing is updated."""

    def averaged(self) -> Weights:
        """A copy of the moving average (EMA) of the weights on the host."""

    def state(self) -> State:
        """A copy of the complete state on the host."""

    def restore(self, state: State) -> None:
        """Continue exactly from `state`."""


class Backend(Protocol):
    """One framework on one device."""

    name: str
    device: str
    precision: str
    deterministic: bool
    ranks: Ranks

    def array(self, values: Array) -> Any:
        """Copy a host array to the device; on a CPU it may share memory."""

    def keyed_noise(
        self, seed: int, purpose: str, images: Sequence[int], shape: Sequence[int], step: int = 0
    ) -> Any:
        """Draw `rng.normal_per_image(..., noise="keyed")` on the device, with the same bits."""

    def numpy(self, values: Any) -> Array:
        """Copy a device array to the host; waits for it."""

    def scalar(self, value: Any) -> float:
        """A device scalar as a Python float; waits for it."""

    def network(self, plan: AnyPlan, weights: Weights | None) -> Any:
        """A network for prediction only, with exactly these weights. None is only allowed for a
        user's own network, which then keeps its weights."""

    def weights(self, network: Any) -> Weights:
        """Host copies of a network's weights by name."""

    def feature_network(self, name: str, arrays: Weights) -> Any:
        """The network of `diptych.evaluation.features` with this name and these folded arrays."""

    def predict(self, network: Any, x: Any, embedding: Any, classes: Any = None) -> Any:
        """The network's output for images (B, C, H, W) and embeddings (B or 1, ch), without
        gradients; a network with K classes also takes classes (B or 1, K + 1), see
        `diptych.diffusion.classes`."""

    def twice(self, x: Any) -> Any:
        """The array concatenated with itself along the first axis."""

    def inner_products(self, rows: Any, others: Any) -> Any:
        """The inner products of rows (N, d) with others (M, d): (N, M), without gradients."""

    def learner(
        self, plan: AnyPlan, weights: Weights | None, train: TrainConfig, seed: int
    ) -> Learner:
        """A learner that starts from these weights, with an equal EMA; None as in `network`."""

    def clip(self, x: Any) -> Any:
        """The array limited to [-1, 1]."""

    def submit(self, x: Any) -> None:
        """Start the work behind `x` on the device; a lazy framework would accumulate it."""

    def synchronize(self) -> None:
        """Wait until all work is done."""

    def gather(self, values: Array) -> Array:
        """Every rank's numbers, (world, n), from this rank's (n,) of 0 to 2**31 - 1, int32; every
        rank must call it, and waits for the others."""

    def memory_mb(self) -> float:
        """Memory in MiB: the process's resident set on a CPU; on a GPU the allocator's peak
        (PyTorch), or what it holds now (Jittor)."""

    def free_memory(self) -> int | None:
        """Bytes that arrays may still take on a GPU, the allocator's unused ones included; None
        on a CPU, or if the framework does not say."""

    def counters(self) -> dict[str, float]:
        """The framework's own counters; a key that it does not count is absent.

        allocated_mb, reserved_mb: in use by arrays, and held by the framework's allocator.
        live_vars, live_ops: arrays and operators in the lazy graph.
        kernels: compiled kernels that the process has loaded.
        """

    def describe(self) -> dict[str, Any]:
        """Framework version, device name and threads, for run records."""
