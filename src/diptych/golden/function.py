"""A training function of any framework on record: run in this process, without pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diptych.golden.compare import Verdict, compare
from diptych.golden.place import place
from diptych.golden.record import (
    DEFAULT_RTOL,
    FunctionSubject,
    Golden,
    Trace,
    make_golden,
    observed,
    read_golden,
    stated,
    write_golden,
)

Steps = Iterable[Any]
Training = Callable[[], Steps] | Steps


def record(
    path: str | Path,
    training: Training,
    *,
    steps: int = 20,
    rtol: float = DEFAULT_RTOL,
    source: str = "",
    overwrite: bool = True,
) -> Golden:
    """Record the first steps of a training.

    Args:
        path: the record, a JSON file.
        training: a function without arguments, or an iterator: per step a loss; or a dict with
            `loss`, other numbers (in every step), and arrays (as they are when last given); or a
            pair (loss, that dict).
        steps: how many steps are recorded.
        rtol: relative tolerance of every number elsewhere than here.
        source: where that tolerance comes from.

    Raises:
        UserError: the training gives fewer steps, or a number that is not finite.
    """
    trace = traced(training, steps)
    repeats = False
    if callable(training):
        again = traced(training, steps)
        repeats = (trace.numbers, trace.arrays) == (again.numbers, again.arrays)
    told = source or (
        f"{rtol:g} by default: no spread was measured" if rtol == DEFAULT_RTOL else "as given"
    )
    named = str(getattr(training, "__name__", "iterator"))
    subject = FunctionSubject(kind="function", function=named)
    made = make_golden(trace, subject, repeats, stated(trace, rtol, told))
    write_golden(Path(path), made, overwrite)
    return made


def check(path: str | Path, training: Training) -> Verdict:
    """Compare the first steps of a training with their record.

    Raises:
        UserError: no record, or the training gives fewer steps than it holds.
    """
    wanted = read_golden(Path(path))
    return compare(wanted, traced(training, wanted.steps))


def traced(training: Training, steps: int, name: str = "") -> Trace:
    """The numbers of a training's first steps, and the place where it ran.

    Args:
        name: the training's name in messages; "": the function's own.

    Raises:
        UserError: the training gives fewer steps, or a step without a loss.
    """
    made = training() if callable(training) else training
    trace = observed(made, steps, name or getattr(training, "__name__", "the training"))
    trace.place = place()  # now, for the training has loaded its framework and taken its device
    return trace
