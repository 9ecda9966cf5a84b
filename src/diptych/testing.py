"""Golden losses in tests of a training of your own, of any framework.

    from diptych.testing import golden             # a pytest fixture

    def test_first_steps(golden):
        golden(train)                              # train() yields a loss per step

The record lies beside the test, in `golden/TEST.json`. It is written where DIPTYCH_GOLDEN=record is
in the environment (the test is then skipped, for it compared nothing), and compared otherwise: bit
by bit at the recorded place, within the tolerance elsewhere. A function is run twice when it is
recorded, to see whether its bits repeat; of an iterator that is not known, so it is compared within
the tolerance everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diptych.errors import UserError
from diptych.golden.compare import Verdict, compare
from diptych.golden.place import place
from diptych.golden.record import (
    DEFAULT_RTOL,
    Golden,
    Trace,
    make_golden,
    observed,
    read_golden,
    stated,
    write_golden,
)

__all__ = ["GoldenLosses", "check", "golden", "record"]

RECORDING = "DIPTYCH_GOLDEN"
Steps = Iterable[Any]
Training = Callable[[], Steps] | Steps


def record(
    path: str | Path, training: Training, *, steps: int = 20, rtol: float = DEFAULT_RTOL,
    source: str = "", overwrite: bool = True,
) -> Golden:  # fmt: skip
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
    trace = _trace(training, steps)
    repeats = False
    if callable(training):
        again = _trace(training, steps)
        repeats = (trace.numbers, trace.arrays) == (again.numbers, again.arrays)
    told = source or (
        f"{rtol:g} by default: no spread was measured" if rtol == DEFAULT_RTOL else "as given"
    )
    subject = {"kind": "function", "function": getattr(training, "__name__", "iterator")}
    made = make_golden(trace, subject, repeats, stated(trace, rtol, told))
    write_golden(Path(path), made, overwrite)
    return made


def check(path: str | Path, training: Training) -> Verdict:
    """Compare the first steps of a training with their record.

    Raises:
        UserError: no record, or the training gives fewer steps than it holds.
    """
    wanted = read_golden(Path(path))
    return compare(wanted, _trace(training, wanted.steps))


def _trace(training: Training, steps: int) -> Trace:
    made = training() if callable(training) else training
    trace = observed(made, steps, getattr(training, "__name__", "the training"))
    trace.place = place()
    return trace


class GoldenLosses:
    """The fixture's value: call it with a training to compare it with its record.

    Args:
        folder: the records' folder.
        name: the record's name if none is given.
        recording: write records instead of comparing.
    """

    def __init__(self, folder: Path, name: str, recording: bool) -> None:
        self.folder, self.name, self.recording = folder, name, recording

    def __call__(
        self, training: Training, *, steps: int = 20, name: str = "", rtol: float = DEFAULT_RTOL,
        source: str = "",
    ) -> Verdict:  # fmt: skip
        """Compare a training's first steps with their record; fail naming the first difference.

        Args:
            training, steps, rtol, source: as in `record`; the record's own count when compared.
            name: the record's name; "": the test's.
        """
        path = self.folder / f"{name or self.name}.json"
        if self.recording:
            record(path, training, steps=steps, rtol=rtol, source=source)
            pytest.skip(f"recorded {path}: nothing was compared")
        if not path.is_file():
            pytest.fail(f"{path}: no record; write it with {RECORDING}=record", pytrace=False)
        verdict = check(path, training)
        if not verdict.passed:
            pytest.fail(f"{path}: {verdict.text()}", pytrace=False)
        return verdict


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[GoldenLosses]:
    """Compare a training's first steps with a record beside the test; see the module."""
    given = os.environ.get(RECORDING, "")
    if given not in ("", "record"):
        raise UserError(f"{RECORDING}={given}: expected 'record', or nothing")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name).strip("-")
    yield GoldenLosses(request.path.parent / "golden", name, given == "record")
