"""The numbers of a run, and of two runs side by side: the content of `compare.json`.

Step-by-step differences only mean something if both runs drew the same random numbers: equal
settings, seed, data and noise. `mismatches` gives the reasons why two runs do not match.
The same records give the same numbers, which depend on no clock, path or unseeded draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from diptych.config.load import flatten
from diptych.pages.catalogue import Text
from diptych.pages.template import joined, words
from diptych.profiling import clock
from diptych.profiling.outliers import Slow, slow_steps
from diptych.report.numbers import costs, losses
from diptych.report.numbers.losses import common_steps
from diptych.runs.reader import Run

SCHEMA_VERSION = 1
Numbers = dict[str, Any]
# Keys of an environment that make two runs' times and memory incomparable.
MACHINE = ("device", "device_name", "cpu", "cores", "threads", "platform", "world")
# A backend that does not know its device's model names its kind; that is not a difference.
KINDS = ("cpu", "cuda")
# Keys that always differ and determine nothing, such as when and from where a run was started.
INCIDENTAL = ("starts", "command", "dataset_origin", "config_identity")
SHOWN_KEYS = 4
# Settings that change the work of a step, in addition to the network's.
WORK = (
    "data.image_size", "data.channels", "train.batch_size", "train.accumulate", "train.noise",
    "train.precision", "train.checkpoint_activations", "train.compile",
)  # fmt: skip
# Settings that change what the loss is.
LOSS = ("train.loss", "train.weighting", "train.min_snr_gamma")
SHOWN = ("backend", "device", "framework_version", "python", "numpy", "cpu", "threads")


class RunNumbers:
    """One run, its label and its own numbers, each computed on first use."""

    def __init__(self, run: Run, label: str) -> None:
        self.run, self.label = run, label

    @cached_property
    def loss(self) -> Numbers:
        """The distribution of the losses."""
        return losses.loss_summary(self.run)

    @cached_property
    def step_time(self) -> Numbers | None:
        """Seconds of the synchronised steps; None if there are none."""
        return costs.step_time(self.run)

    @cached_property
    def slow(self) -> Slow:
        """The slow steps and their causes."""
        return slow_steps(self.run.folder)

    @cached_property
    def epoch_time(self) -> Numbers:
        """Seconds of the complete epochs."""
        return costs.epoch_time(self.run)

    @cached_property
    def memory(self) -> Numbers | None:
        """Peak and slope of the memory; None if it was not recorded."""
        return costs.memory(self.run)

    def identity(self) -> Numbers:
        """The run's software, machine, settings and steps."""
        run = self.run
        return {
            "label": self.label,
            "name": run.name,
            **{key: run.environment.get(key) for key in SHOWN},
            "config_sha256": run.config.identity(),
            "seed": run.config.seed,
            "dataset_sha256": run.environment.get("dataset_sha256"),
            "first_step": int(run.step[0]),
            "last_step": int(run.step[-1]),
            "steps": int(run.step.size),
            "torn_last_line": run.torn,
        }

    def times(self) -> Numbers | None:
        """The step times with the slow steps, in the form of compare.json."""
        if self.step_time is None:
            return None
        return self.step_time | {"outliers": self.slow.summary()}


@dataclass(frozen=True)
class PairNumbers:
    """Two runs side by side; a ratio is B's number over A's.

    Attributes:
        at: the indices of both in the study.
        matched: True if single steps are compared.
        reasons: reasons why the runs do not match; empty if they do.
        samples: the comparison of two sample folders, if they were given.
    """

    a: RunNumbers
    b: RunNumbers
    at: tuple[int, int]
    matched: bool
    reasons: tuple[Text, ...]
    samples: Numbers | None = None

    @property
    def names(self) -> dict[str, str]:
        """The labels of both, as arguments for sentences."""
        return {"a": self.a.label, "b": self.b.label}

    @property
    def both(self) -> tuple[RunNumbers, RunNumbers]:
        """A and B."""
        return self.a, self.b

    @property
    def across(self) -> bool:
        """True if the two runs have different backends."""
        return self.a.run.backend != self.b.run.backend

    @cached_property
    def difference(self) -> Numbers | None:
        """The step-by-step differences; None if not matched."""
        return losses.step_differences(self.a.run, self.b.run) if self.matched else None

    @cached_property
    def loss_end(self) -> Numbers | None:
        """The final losses, over the same range of steps of both; a ratio only of one loss."""
        with_ratio = not self.matched and self.same_loss
        return losses.loss_end(self.a.run, self.b.run, with_ratio=with_ratio)

    @cached_property
    def step_ratio(self) -> Numbers | None:
        """The ratio of the median step times."""
        return costs.step_time_ratio(self.a.run, self.b.run)

    @cached_property
    def together(self) -> Numbers | None:
        """The time for which both trained at once; None if it is not recorded."""
        return clock.together(self.a.run, self.b.run)

    @cached_property
    def config_differences(self) -> list[Numbers]:
        """Settings that differ."""
        return differences(flatten(self.a.run.config), flatten(self.b.run.config))

    @property
    def same_loss(self) -> bool:
        """True if both losses are the same quantity, of the same images and process."""
        keys = [d["key"] for d in self.config_differences]
        other = any(key in LOSS or key.startswith(("diffusion.", "data.")) for key in keys)
        return self.dataset_equal is not False and not other

    @cached_property
    def environment_differences(self) -> list[Numbers]:
        """Differences between the environments, without incidental ones."""
        found = differences(*({"world": 1} | flat(each.run.environment) for each in self.both))
        return [d for d in found if d["key"].split(".")[0] not in INCIDENTAL]

    @property
    def machine_differences(self) -> list[str]:
        """Keys that show that the machines were not alike."""
        return machine_keys(self.environment_differences)

    @property
    def work_differences(self) -> list[str]:
        """Settings that show that a step was not the same work."""
        keys = [d["key"] for d in self.config_differences]
        named = ["network"] if different_networks(self.a.run, self.b.run) else []
        return named + [key for key in keys if key in WORK or key.startswith("model.")]

    @property
    def dataset_equal(self) -> bool | None:
        """True if both read the same pixels; None if that is not recorded."""
        data = [each.run.environment.get("dataset_sha256") for each in self.both]
        return None if None in data else data[0] == data[1]

    def content(self) -> Numbers:
        """The numbers of compare.json."""
        a, b = self.both
        times = {
            "a": a.times(),
            "b": b.times(),
            "ratio": self.step_ratio,
            "together": self.together,
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "matched": self.matched,
            "mismatches": list(self.reasons),
            "runs": {"a": a.identity(), "b": b.identity()},
            "dataset_equal": self.dataset_equal,
            "config_differences": self.config_differences,
            "environment_differences": self.environment_differences,
            "machine_differences": self.machine_differences,
            "work_differences": self.work_differences,
            "numbers": {
                "difference": self.difference,
                "loss": {"a": a.loss, "b": b.loss, "end": self.loss_end},
                "step_time": times,
                "epoch_time": {"a": a.epoch_time, "b": b.epoch_time},
                "memory": {"a": a.memory, "b": b.memory},
                "samples": self.samples,
            },
        }


def two_labels(a: Run, b: Run) -> tuple[str, str]:
    """The runs' labels: their backends, else (for one backend) their folders, else with letters."""
    if a.backend != b.backend:
        return a.backend, b.backend
    if a.name != b.name:
        return a.name, b.name
    return f"{a.name} (A)", f"{b.name} (B)"


def mismatches(a: Run, b: Run) -> list[Text]:
    """Reasons why the losses may not be compared step by step; empty if they may."""
    reasons = []
    device = [run.name for run in (a, b) if run.config.train.noise == "device"]
    if device:
        reasons.append(words("mismatch.device", runs=device))
    settings = differences(a.settings(), b.settings())
    if device:  # said already
        settings = [d for d in settings if d["key"] != "train.noise"]
    if settings:
        named = [words("mismatch.setting", **d) for d in settings[:SHOWN_KEYS]]
        more = len(settings) - SHOWN_KEYS
        named += [words("mismatch.more", n=more)] if more > 0 else []
        reasons.append(joined(named, ", ", "，"))
    if different_networks(a, b):
        reasons.append(words("mismatch.network", a=_network_name(a), b=_network_name(b)))
    if a.config.seed != b.config.seed:
        reasons.append(words("mismatch.seed", a=a.config.seed, b=b.config.seed))
    data = [run.environment.get("dataset_sha256") for run in (a, b)]
    if None in data:
        silent = [run.name for run, sha in zip((a, b), data, strict=True) if sha is None]
        reasons.append(words("mismatch.unnamed", runs=silent))
    elif data[0] != data[1]:
        reasons.append(words("mismatch.data", a=str(data[0]), b=str(data[1])))
    return reasons + _step_mismatches(a, b)


def different_networks(a: Run, b: Run) -> bool:
    """True if a user's own network was trained on one side, and another network on the other.

    Between backends only the weights' shapes are compared: the classes may be named differently.
    """
    one, other = a.own_network, b.own_network
    if one is None or other is None or a.backend == b.backend:
        return one != other
    return one["shapes_sha256"] != other["shapes_sha256"]


def _network_name(run: Run) -> str:
    found = run.own_network
    return f"{found['class']} ({found['shapes_sha256'][:12]})" if found else "Diptych's U-Net"


def _step_mismatches(a: Run, b: Run) -> list[Text]:
    common = common_steps(a, b)
    if common is None:
        ends = {"from_a": a.step[0], "to_a": a.step[-1], "from_b": b.step[0], "to_b": b.step[-1]}
        return [words("mismatch.steps", **ends)]
    in_a, in_b = a.epoch[common[0]], b.epoch[common[1]]
    apart = np.flatnonzero(in_a != in_b)
    if apart.size == 0:
        return []
    at, step = int(apart[0]), a.step[common[0]]
    return [words("mismatch.epoch", step=step[at], a=in_a[at], b=in_b[at])]


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys whose values differ, in order, as {"key", "a", "b"}; None for a missing value."""
    keys = [*a, *(key for key in b if key not in a)]
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        found |= {f"{prefix}{key}": value} if inner is None else inner
    return found


def machine_keys(environment: list[dict[str, Any]]) -> list[str]:
    """Keys of the environment differences that show that the machines were not alike."""
    named = [d for d in environment if not {str(d["a"]), str(d["b"])} & {*KINDS}]
    return [
        d["key"]
        for d in environment
        if d["key"] in MACHINE and (d["key"] != "device_name" or d in named)
    ]
