"""Whether two runs may be compared step by step, and what differs between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diptych.report.records import Run
from diptych.report.statistics import common_steps

# What of an environment makes two runs' times and memory incomparable.
MACHINE = ("device", "device_name", "cpu", "cores", "threads", "platform")
# A panel that does not know its device's model names its kind; that is no difference.
KINDS = ("cpu", "cuda")
# When and from where a run was started, which differs always and determines nothing.
INCIDENTAL = ("starts", "command", "dataset_origin", "config_identity")
SHOWN_KEYS = 4


def mismatches(a: Run, b: Run) -> list[str]:
    """Why the losses may not be compared step by step, the first reason first; empty if they
    may."""
    reasons = []
    device = [run.name for run in (a, b) if run.config.train.noise == "device"]
    if device:
        reasons.append(
            f"train.noise is device in {' and '.join(device)}, so the draws are not shared"
        )
    settings = [d for d in differences(a.settings(), b.settings()) if d["key"] != "train.noise"]
    if settings:
        named = [f"{d['key']} is {d['a']} and {d['b']}" for d in settings[:SHOWN_KEYS]]
        more = len(settings) - SHOWN_KEYS
        reasons.append(", ".join(named) + (f", and {more} more settings differ" * (more > 0)))
    if a.config.seed != b.config.seed:
        reasons.append(f"seed is {a.config.seed} and {b.config.seed}")
    data = [run.environment.get("dataset_sha256") for run in (a, b)]
    if None in data:
        silent = [run.name for run, sha in zip((a, b), data, strict=True) if sha is None]
        reasons.append(f"environment.json of {' and '.join(silent)} names no dataset_sha256")
    elif data[0] != data[1]:
        reasons.append(f"they read different data (sha256 {data[0]!s:.12} and {data[1]!s:.12})")
    return reasons + _step_mismatches(a, b)


def _step_mismatches(a: Run, b: Run) -> list[str]:
    common = common_steps(a, b)
    if common is None:
        ranges = f"{a.step[0]} to {a.step[-1]} and {b.step[0]} to {b.step[-1]}"
        return [f"they have no common steps ({ranges})"]
    in_a, in_b = a.epoch[common[0]], b.epoch[common[1]]
    apart = np.flatnonzero(in_a != in_b)
    if apart.size == 0:
        return []
    at, step = int(apart[0]), a.step[common[0]]
    return [f"step {step[at]} is in epoch {in_a[at]} and {in_b[at]}, so the batches differ"]


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
