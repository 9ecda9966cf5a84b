"""The sentences about what the runs cost: step times, epochs, memory.

The records say that a step was slow, never why: compiling is named as likely for the first steps
only, and the load of the machine is named wherever two runs' times are set against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.statistics import FIRST_STEPS, LEAST_FOR_SLOPE, OUTLIER
from diptych.report.wording import Sentence, ratio_sentence, say

Numbers = Mapping[str, Any]
# A fitted change of less than this share of the peak, over the whole run, is called flat.
FLAT = 0.01


def step_times(numbers: Numbers, machines: list[str], a: str, b: str) -> Iterator[Sentence]:
    """The ratio of the median step times, what qualifies it, and the slow steps of each run."""
    for label, run in ((a, numbers["a"]), (b, numbers["b"])):
        if run is None:
            template = "No step of {run} was synchronised, so it has no step times."
            yield say(f"time.none.{label}", "time", template, run=label)
    if numbers["ratio"]:
        what = ("median step time", "slower", "faster")
        yield ratio_sentence("time.ratio", what, numbers["ratio"], a, b)
        yield say(
            "time.caveat",
            "time",
            "The two runs were not interleaved, so the load of the machine may explain part of "
            "it{machines}.",
            machines="; nor were the machines set up alike" if machines else "",
        )
    if numbers["a"] and numbers["b"]:
        yield say(
            "time.data",
            "time",
            "Waiting for data took {share_a:share} of {a}'s time and {share_b:share} of {b}'s.",
            a=a,
            share_a=numbers["a"]["data_share"],
            b=b,
            share_b=numbers["b"]["data_share"],
        )
    for label, run in ((a, numbers["a"]), (b, numbers["b"])):
        if run is not None:
            yield from _outliers(label, run)


def _outliers(label: str, numbers: Numbers) -> Iterator[Sentence]:
    slow = numbers["outliers"]
    key = f"time.outliers.{label}"
    if not slow["steps"]:
        yield say(
            key,
            "time",
            "None of {run}'s {n:count} synchronised steps took more than {times:g} times its "
            "median of {median:seconds}.",
            run=label,
            n=numbers["synced_steps"],
            times=OUTLIER,
            median=numbers["median"],
        )
        return
    template = (
        "{k:count} of {run}'s {n:count} synchronised steps took more than {times:g} times its "
        "median of {median:seconds}: {steps:listed}. Their time beyond the median adds up to "
        "{excess:seconds}, {share:share} of the time of all synchronised steps."
    )
    yield say(
        key,
        "time",
        template,
        k=len(slow["steps"]),
        run=label,
        n=numbers["synced_steps"],
        times=OUTLIER,
        median=numbers["median"],
        steps=slow["steps"],
        excess=slow["excess_s"],
        share=slow["share"],
    )
    yield from _first_steps(label, numbers)


def _first_steps(label: str, numbers: Numbers) -> Iterator[Sentence]:
    slow, first = numbers["outliers"], numbers["outliers_first_steps"]
    if first["steps"]:
        yield say(
            f"time.first.{label}",
            "time",
            "Of that, {excess:seconds} ({share:share}) fell on the first {first} steps{resumes}; "
            "compiling kernels is a likely cause, which the records neither show nor rule out.",
            excess=first["excess_s"],
            share=first["excess_s"] / slow["excess_s"],
            first=FIRST_STEPS,
            resumes=f" after each of {len(numbers['starts'])} starts"
            * (len(numbers["starts"]) > 1),
        )


def epochs(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """How long the complete epochs took, and how much of that was measured while unsynchronised."""
    in_a, in_b = numbers["a"], numbers["b"]
    for label, run in ((a, in_a), (b, in_b)):
        if not run["complete"]:
            template = "The record of {run} holds no epoch that is known to be complete."
            yield say(f"time.no_epoch.{label}", "time", template, run=label)
    if in_a["complete"] and in_b["complete"]:
        yield say(
            "time.epoch",
            "time",
            "A complete epoch took {a} {median_a:seconds} (median of {n_a}) and {b} "
            "{median_b:seconds} (median of {n_b}).",
            a=a,
            median_a=in_a["median"],
            n_a=len(in_a["complete"]),
            b=b,
            median_b=in_b["median"],
            n_b=len(in_b["complete"]),
        )
    for label, run in ((a, in_a), (b, in_b)):
        if run["complete"] and run["unsynced_steps"]:
            yield say(
                f"time.unsynced.{label}",
                "time",
                "{k:count} of {run}'s {n:count} steps were not synchronised: they count in no "
                "step time, and its epoch times may miss work that was still waiting.",
                k=run["unsynced_steps"],
                run=label,
                n=run["steps"],
            )


def memory(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """The peaks, and whether memory rose over each run."""
    for label, run in ((a, numbers["a"]), (b, numbers["b"])):
        if run is None:
            yield say(f"memory.none.{label}", "memory", "{run} recorded no memory.", run=label)
            continue
        yield say(
            f"memory.peak.{label}",
            "memory",
            "{run} held {first:mb} at its first step, {last:mb} at its last and {peak:mb} at its "
            "peak (step {step:count}).",
            run=label,
            first=run["first"],
            last=run["last"],
            peak=run["peak"],
            step=run["peak_step"],
        )
        yield _slope(label, run)


def _slope(label: str, run: Numbers) -> Sentence:
    slope, key = run["slope_per_1000_steps"], f"memory.slope.{label}"
    if slope is None:
        template = "{run} has fewer than {least} memory readings in its second half: no slope."
        return say(key, "memory", template, run=label, least=LEAST_FOR_SLOPE)
    n = run["slope_steps"]
    change = slope * n / 1000.0
    if abs(change) < FLAT * run["peak"]:
        template = (
            "Over its last {n:count} steps the memory of {run} is flat: the robust fit changes by "
            "{slope:plus} MB per 1,000 steps, in all {share:share} of the peak."
        )
        share = abs(change) / run["peak"]
        return say(key, "memory", template, run=label, n=n, slope=slope, share=share)
    template = (
        "Over its last {n:count} steps the memory of {run} {moves} by {slope:sig2} MB per "
        "1,000 steps (robust fit)."
    )
    moves = "rises" if slope > 0 else "falls"
    return say(key, "memory", template, run=label, n=n, moves=moves, slope=abs(slope))
