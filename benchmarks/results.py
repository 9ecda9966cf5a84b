"""Results from turns: medians, paired ratios with a bootstrap interval, verdicts on the bars.

    seconds of a contender  = median over rounds of (turn / steps)
    ratio a / b             = median over rounds k of (turn_a[k] / turn_b[k])

The interval spans the 2.5 % and 97.5 % quantiles of that median over 5,000 resamples of the rounds.
It describes this machine during these minutes, not other machines.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.driver import Outcome, machine
from benchmarks.job import COMPILED
from diptych.types import Float64

DRAWS = 5000
LEAST_FOR_INTERVAL = 4

# (task, a, b): the ratio of times a / b must be at least, or at most, this.
BARS = {
    ("training", "diffusers", "torch"): ("least", 1.1),
    ("sampling", "diffusers", "torch"): ("least", 1.2),
    ("training", "jittor", "torch"): ("most", 1.5),
    ("sampling", "jittor", "torch"): ("most", 1.5),
}
PAIRS = (("diffusers", "torch"), ("jittor", "torch"), ("diffusers", "jittor"),
         (COMPILED, "torch"), ("onnx", "torch"), ("openvino", "torch"))  # fmt: skip


def median(values: Float64) -> dict[str, float | None]:
    """Median of the rounds and its bootstrap interval; low and high are None below 4 rounds."""
    found: dict[str, float | None] = {"median": float(np.median(values)), "low": None, "high": None}
    if len(values) >= LEAST_FOR_INTERVAL:
        generator = np.random.Generator(np.random.Philox(key=0))
        index = generator.integers(0, len(values), size=(DRAWS, len(values)))
        low, high = np.quantile(np.median(values[index], axis=1), (0.025, 0.975))
        found |= {"low": float(low), "high": float(high)}
    return found


def verdict(kind: str, bar: float, ratio: dict[str, float | None]) -> str:
    """`met` or `missed`; `undecided` if the interval contains the bar or does not exist."""
    low, high = ratio["low"], ratio["high"]
    if low is None or high is None or low < bar < high:
        return "undecided"
    above = low >= bar
    return "met" if above == (kind == "least") else "missed"


def digest(outcome: Outcome) -> dict[str, Any]:
    """All numbers of an outcome, as JSON values."""
    plan = outcome.plan
    seconds = {
        name: np.array([turn.seconds for turn in turns]) / plan.amount.steps
        for name, turns in outcome.turns.items()
    }
    return {
        "task": plan.task,
        "size": plan.size.name,
        "network": plan.size.describe(),
        "device": plan.device,
        "threads": plan.threads,
        "batch": plan.amount.batch,
        "steps": plan.amount.steps,
        "rounds": plan.amount.rounds,
        "warmup_rounds": plan.warmup,
        "wait_policy": "passive",
        "heap": plan.heap,
        "machine": machine(),
        "load_before": outcome.load_before,
        "load_after": outcome.load_after,
        "contenders": {name: _contender(outcome, name, seconds[name]) for name in seconds},
        "ratios": [_ratio(plan.task, a, b, seconds) for a, b in PAIRS if {a, b} <= set(seconds)],
        "agreement": agreement(outcome),
    }


def _contender(outcome: Outcome, name: str, seconds: Float64) -> dict[str, Any]:
    turns, loaded = outcome.turns[name], outcome.loaded[name]
    plan = outcome.plan
    per_image = (1 if plan.task == "training" else plan.amount.steps) / plan.amount.batch
    step = median(seconds)
    return {
        "parameters": loaded.parameters,
        "facts": loaded.facts,
        "seconds_per_step": step,
        "cpu_seconds_per_step": float(np.median([t.cpu_seconds for t in turns]))
        / plan.amount.steps,
        "seconds_per_image": (step["median"] or 0.0) * per_image,
        "memory_mb": {
            "loaded": loaded.memory.now,
            "steady": float(np.median([turn.memory.now for turn in turns])),
            "peak": max(turn.memory.peak for turn in turns),
            "growth": turns[-1].memory.now - turns[0].memory.now,
        },
        "rounds": [float(each) for each in seconds],
    }


def _ratio(task: str, a: str, b: str, seconds: dict[str, Float64]) -> dict[str, Any]:
    found: dict[str, Any] = {"a": a, "b": b, **median(seconds[a] / seconds[b])}
    if (task, a, b) in BARS:
        kind, bar = BARS[task, a, b]
        found |= {"bar": f"at {kind} {bar}", "verdict": verdict(kind, bar, found)}
    return found


def agreement(outcome: Outcome) -> dict[str, float]:
    """Largest difference of each answer from the first, relative to the first's largest value.

    In training the answer is a fresh network's prediction, in sampling the generated images.
    Contenders that agree to rounding computed the same function equally often.
    """
    names = list(outcome.answers)
    first = outcome.answers[names[0]]
    return {
        name: float(np.abs(outcome.answers[name] - first).max() / np.abs(first).max())
        for name in names[1:]
    }
