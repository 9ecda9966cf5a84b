"""The sentences about what the runs cost: step times, epochs, memory.

The records say that a step was slow, never why: compiling is named as likely for the first steps
only, and the load of the machine is named wherever two runs' times are set against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.catalogue import Text, phrase
from diptych.report.statistics import FIRST_STEPS, LEAST_FOR_SLOPE, OUTLIER
from diptych.report.wording import Sentence, joined, ratio_sentence, say, words

Numbers = Mapping[str, Any]
# A fitted change of less than this share of the peak, over the whole run, is called flat.
FLAT = 0.01


def step_times(numbers: Numbers, unlike: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """The ratio of the median step times, what qualifies it, and the slow steps of each run.

    Args:
        unlike: `machine_differences` and `work_differences` of the two runs.
    """
    yield from ratio_of_times(numbers, unlike, a, b)
    for label, run in ((a, numbers["a"]), (b, numbers["b"])):
        yield from slow_steps(label, run)


def ratio_of_times(numbers: Numbers, unlike: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """The ratio of the median step times, and what qualifies it."""
    if numbers["ratio"]:
        what = ("step_time", "slower", "faster")
        yield ratio_sentence("time.ratio", what, numbers["ratio"], a, b)
        besides = [phrase("time.caveat_machines")] if unlike["machine_differences"] else []
        if unlike["work_differences"]:
            besides.append(words("time.caveat_work", keys=unlike["work_differences"]))
        yield _caveat(numbers["together"], joined(besides, "", ""), a, b)
    if numbers["a"] and numbers["b"]:
        yield say(
            "time.data",
            "time",
            "time.data",
            share_a=numbers["a"]["data_share"],
            a=a,
            share_b=numbers["b"]["data_share"],
            b=b,
        )


def _caveat(both: Numbers | None, machines: Text, a: str, b: str) -> Sentence:
    """What the load of the machine may have done to a ratio of times."""
    named: dict[str, Any] = {"a": a, "b": b, "machines": machines}
    if both is None:
        return say("time.caveat", "time", "time.caveat", **named)
    if not both["seconds"]:
        return say("time.caveat", "time", "time.caveat_apart", **named)
    named |= {"together": both["seconds"], "share": both["share"]}
    return say("time.caveat", "time", "time.caveat_together", **named)


def slow_steps(label: str, numbers: Numbers | None, attributed: bool = False) -> Iterator[Sentence]:
    """The slow steps of one run, or that none was timed.

    Args:
        attributed: recorded causes are told besides, so that none is supposed here.
    """
    if numbers is None:
        yield say(f"time.none.{label}", "time", "time.none", run=label)
        return
    slow = numbers["outliers"]
    key = f"time.outliers.{label}"
    common = {"run": label, "n": numbers["synced_steps"], "times": OUTLIER}
    common["median"] = numbers["median"]
    if not slow["steps"]:
        yield say(key, "time", "time.no_outliers", **common)
        return
    yield say(
        key,
        "time",
        "time.outliers",
        k=len(slow["steps"]),
        steps=slow["steps"],
        excess=slow["excess_s"],
        share=slow["share"],
        **common,
    )
    if not attributed:
        yield from _first_steps(label, numbers)


def _first_steps(label: str, numbers: Numbers) -> Iterator[Sentence]:
    slow, first = numbers["outliers"], numbers["outliers_first_steps"]
    if first["steps"]:
        starts = len(numbers["starts"])
        yield say(
            f"time.first.{label}",
            "time",
            "time.first",
            run=label,
            excess=first["excess_s"],
            share=first["excess_s"] / slow["excess_s"],
            first=FIRST_STEPS,
            resumes=words("time.first_resumes", n=starts) if starts > 1 else phrase("term.nothing"),
        )


def epochs(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """How long the complete epochs took, and how much of that was measured while unsynchronised."""
    in_a, in_b = numbers["a"], numbers["b"]
    for label, run in ((a, in_a), (b, in_b)):
        if not run["complete"]:
            yield say(f"time.no_epoch.{label}", "time", "time.no_epoch", run=label)
    if in_a["complete"] and in_b["complete"]:
        yield say(
            "time.epoch",
            "time",
            "time.epoch",
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
                "time.unsynced",
                k=run["unsynced_steps"],
                run=label,
                n=run["steps"],
            )


def memory(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """The peaks, and whether memory rose over each run."""
    for label, run in ((a, numbers["a"]), (b, numbers["b"])):
        yield from memory_of(label, run)


def memory_of(label: str, run: Numbers | None) -> Iterator[Sentence]:
    """One run's peak, and whether its memory rose."""
    if run is None:
        yield say(f"memory.none.{label}", "memory", "memory.none", run=label)
        return
    yield say(
        f"memory.peak.{label}",
        "memory",
        "memory.peak",
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
        return say(key, "memory", "memory.no_slope", run=label, least=LEAST_FOR_SLOPE)
    n = run["slope_steps"]
    change = slope * n / 1000.0
    if abs(change) < FLAT * run["peak"]:
        share = abs(change) / run["peak"]
        return say(key, "memory", "memory.flat", run=label, n=n, slope=slope, share=share)
    moves = phrase("term.rises" if slope > 0 else "term.falls")
    return say(key, "memory", "memory.slope", run=label, n=n, moves=moves, slope=abs(slope))
