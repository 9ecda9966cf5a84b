"""The workbench of every rung: config, data and weights, and methods that record its results.

Weights are freshly initialised, with every constant perturbed: norms of weight 1 and bias 0 would
hide a swap of two of them. `nudge` k > 0 moves each value of an input to a random neighbouring
float32, so that a backend's reaction to one rounding can be measured.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diptych import rng
from diptych.align.ladder.nudges import BITS, nudged
from diptych.align.ladder.trace import Tracer, read_trace
from diptych.align.process.panels import Panel
from diptych.backends.protocol import Batch
from diptych.config import load
from diptych.config.load import Config
from diptych.data import Images, load_configured
from diptych.errors import UserError
from diptych.network.parameters import initial_weights, parameter_table
from diptych.network.plan import Plan, make_plan
from diptych.training import batches as data_batches
from diptych.types import Array, Int64, Weights

SPREAD = 0.1  # of the constants: norm weights 1 +- 0.1, biases 0 +- 0.1
COARSE = "lockstep"  # the rung that is nudged by the precision's own spacing
SYNTHETIC = 256  # images that replace data that is not on this machine


@dataclass(frozen=True)
class Spec:
    """A worker's task, serialisable as JSON for its process."""

    panel: str
    config: dict[str, Any]
    rungs: tuple[str, ...]
    steps: int = 10
    batch: int = 8
    device: str = "cpu"
    feed: str | None = None  # the reference's trace, whose inputs feed each layer
    port: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"
    deterministic: bool = True

    @property
    def label(self) -> str:
        """A name for the worker's files."""
        return self.panel if self.precision == "fp32" else f"{self.panel}-{self.precision}"

    def tree(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return dataclasses.asdict(self)


def spec_from(tree: dict[str, Any]) -> Spec:
    """The inverse of `Spec.tree`."""
    return Spec(**{**tree, "rungs": tuple(tree["rungs"])})


def find_images(settings: Config) -> tuple[Images, str]:
    """The config's images, or keyed synthetic ones of the same shape, and their origin."""
    images, _, origin = find_data(settings)
    return images, origin


def find_data(settings: Config) -> tuple[Images, Int64 | None, str]:
    """Images, their labels if the source has any, and their origin."""
    data = settings.data
    try:
        found = load_configured(data, download=False)
    except UserError:
        shape = (SYNTHETIC, *data.shape)
        drawn = rng.stream(settings.seed, "initial_noise", 1 << 20).integers(0, 256, shape)
        return drawn.astype(np.uint8), draw_labels(settings, SYNTHETIC), "synthetic"
    return found.images, found.labels, found.name


def draw_labels(settings: Config, count: int) -> Int64 | None:
    """Keyed labels in place of real ones; None for a network without classes."""
    classes = settings.model.num_classes
    draws = rng.stream(settings.seed, "initial_noise", (1 << 20) + 2)
    return draws.integers(0, classes, count) if classes else None


class Workbench:
    """One pass of one worker: new for each pass, so that a planted fault reaches everything."""

    def __init__(self, panel: Panel, spec: Spec, tracer: Tracer, nudge: int = 0) -> None:
        self.panel, self.spec, self.tracer, self.nudge = panel, spec, tracer, nudge
        self.config: Config = load.validate(spec.config, "the ladder's config")
        self.plan: Plan = make_plan(self.config)
        self.images, self.labels, self.data_from = find_data(self.config)
        self.weights = worked_weights(self.plan, self.config.seed)
        self.rung = ""

    def add(self, name: str, values: Any) -> None:
        """Record an array (of the host or the device) in the open rung."""
        array = values if isinstance(values, np.ndarray) else np.asarray(values)
        self.tracer.add(self.rung, name, array)

    def note(self, name: str, value: Any) -> None:
        """Record a JSON value in the open rung."""
        self.tracer.fact(self.rung, name, value)

    def settings(self, **changes: Any) -> Config:
        """The config with changed values, given as section__key=value (`model__dropout=0.1`).

        Noise comes from the host unless changed: bits of device draws cannot be compared. The
        precision is the panel's.
        """
        tree = self.config.model_dump(mode="json")
        tree["train"]["noise"] = "host"
        tree["train"]["precision"] = self.spec.precision
        for key, value in changes.items():
            section, _, name = key.partition("__")
            tree[section][name] = value
        return load.validate(tree, "the ladder's config")

    def batches(self, settings: Config | None = None) -> data_batches.Batches:
        """Training batches: the config's at the ladder's batch size, or those of a changed one."""
        chosen = settings or self.settings(train__batch_size=self.spec.batch)
        same = chosen.model.num_classes == self.config.model.num_classes
        labels = self.labels if same else draw_labels(chosen, len(self.images))
        return data_batches.Batches(chosen, make_plan(chosen), self.images, labels)

    def weights_for(self, plan: Plan) -> Weights:
        """The ladder's weights for the config's network or a changed one."""
        same = parameter_table(plan) == parameter_table(self.plan)
        return self.weights if same else worked_weights(plan, self.config.seed)

    def learner(self, settings: Config | None = None) -> Any:
        """A learner with the ladder's weights."""
        chosen = settings or self.settings()
        plan = make_plan(chosen)
        weights = self.weights_for(plan)
        return self.panel.backend.learner(plan, weights, chosen.train, chosen.seed)

    def moved(self, values: Array, key: str) -> Array:
        """The values, each moved to a neighbouring float32 if this pass is nudged.

        In lockstep a lower precision moves them by its own spacing: Adam's first steps go by a
        gradient's sign, which rounding decides where a gradient is nearly zero.
        """
        moved = nudged(values, self.nudge, (1 << 21) + _number(key))
        if moved is values or self.rung != COARSE or self.spec.precision == "fp32":
            return moved
        spacing = np.spacing(np.abs(values)) * np.float32(2.0 ** (23 - BITS[self.spec.precision]))
        wide: Array = values + np.where(moved > values, spacing, -spacing)
        return np.where(moved == values, values, wide)

    def moved_batch(self, batch: Batch) -> Batch:
        """The batch with its images moved."""
        return dataclasses.replace(batch, x0=self.moved(batch.x0, f"batch {batch.step}"))

    def normal(self, key: str, shape: tuple[int, ...], scale: float = 1.0) -> Array:
        """Keyed normal numbers, moved if this pass is nudged."""
        drawn = rng.normal(self.config.seed, "initial_noise", shape, (1 << 22) + _number(key))
        return self.moved(drawn * np.float32(scale), key)

    def feed(self, rung: str) -> dict[str, Array]:
        """The inputs that the reference recorded in a rung, by name."""
        if self.spec.feed is None:
            return {}
        trace = read_trace(Path(self.spec.feed))
        return trace.rung(rung, lambda name: name.startswith("in/")).arrays


def _number(key: str) -> int:
    import zlib

    return zlib.crc32(key.encode())


def worked_weights(plan: Plan, seed: int) -> Weights:
    """Fresh weights with perturbed constants: a pure function of (plan, seed), float32."""
    weights = initial_weights(plan, seed)
    for index, (name, array) in enumerate(weights.items()):
        if name.endswith(".bias") or "norm" in name.split(".")[-2]:
            draws = rng.stream(seed, "weights", index, 1).standard_normal(array.shape)
            weights[name] = (array + SPREAD * draws).astype(np.float32)
    return weights
