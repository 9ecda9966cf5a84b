"""Whether two runs may be compared step by step, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.report.catalogue import Text
from diptych.report.statistics import common_steps
from diptych.report.wording import joined, words
from diptych.runs.reader import Run

# What of an environment makes two runs' times and memory incomparable.
MACHINE = ("device", "device_name", "cpu", "cores", "threads", "platform")
# A panel that does not know its device's model names its kind; that is no difference.
KINDS = ("cpu", "cuda")
# When and from where a run was started, which differs always and determines nothing.
INCIDENTAL = ("starts", "command", "dataset_origin", "config_identity")
SHOWN_KEYS = 4
# What makes a step more work or less, besides the network itself.
WORK = ("data.image_size", "data.channels", "train.batch_size", "train.noise")


def mismatches(a: Run, b: Run) -> list[Text]:
    """Why the losses may not be compared step by step, the first reason first; empty if they
    may."""
    reasons = []
    device = [run.name for run in (a, b) if run.config.train.noise == "device"]
    if device:
        reasons.append(words("mismatch.device", runs=device))
    settings = [d for d in differences(a.settings(), b.settings()) if d["key"] != "train.noise"]
    if settings:
        named = [words("mismatch.setting", **d) for d in settings[:SHOWN_KEYS]]
        more = len(settings) - SHOWN_KEYS
        named += [words("mismatch.more", n=more)] if more > 0 else []
        reasons.append(joined(named, ", ", "，"))
    if a.config.seed != b.config.seed:
        reasons.append(words("mismatch.seed", a=a.config.seed, b=b.config.seed))
    data = [run.environment.get("dataset_sha256") for run in (a, b)]
    if None in data:
        silent = [run.name for run, sha in zip((a, b), data, strict=True) if sha is None]
        reasons.append(words("mismatch.unnamed", runs=silent))
    elif data[0] != data[1]:
        reasons.append(words("mismatch.data", a=str(data[0]), b=str(data[1])))
    return reasons + _step_mismatches(a, b)


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


def labels(a: Run, b: Run) -> tuple[str, str]:
    """What the runs are called: by panel, by folder where one panel ran twice, else by letter."""
    if a.backend != b.backend:
        return a.backend, b.backend
    if a.name != b.name:
        return a.name, b.name
    return f"{a.name} (A)", f"{b.name} (B)"


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The keys whose values differ, in order, as {"key", "a", "b"}; None where one has none."""
    keys = [*a, *(key for key in b if key not in a)]
    return [
        {"key": key, "a": a.get(key), "b": b.get(key)} for key in keys if a.get(key) != b.get(key)
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def environment_differences(a: Run, b: Run) -> list[dict[str, Any]]:
    """What differs between the environments, of all that may touch a number or a time."""
    found = differences(flat(a.environment), flat(b.environment))
    return [d for d in found if d["key"].split(".")[0] not in INCIDENTAL]


def machine_keys(environment: list[dict[str, Any]]) -> list[str]:
    """Those of the environment differences that say that the machines were not alike."""
    return [
        d["key"]
        for d in environment
        if d["key"] in MACHINE and not (d["key"] == "device_name" and {d["a"], d["b"]} & {*KINDS})
    ]


def work_keys(config: list[dict[str, Any]]) -> list[str]:
    """Those of the settings' differences that say that a step was not the same work."""
    return [d["key"] for d in config if d["key"] in WORK or d["key"].startswith("model.")]
