"""Golden losses: bits at the recorded place, a tolerance elsewhere, the first step that differs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import call
from diptych import testing
from diptych.errors import UserError
from diptych.golden import trainings
from diptych.golden.compare import compare
from diptych.golden.record import Trace, make_golden, measured, read_golden
from diptych.testing import golden  # noqa: F401 - a fixture

PLACE = {"processor": "p", "frameworks": {"torch": "2"}, "threads": 2, "device": "cpu"}


def training(rate: float = 0.1, steps: int = 30, decay: float = 0.0) -> Iterator[Any]:
    """Least squares by gradient descent, from the same draws each time."""
    draws = np.random.default_rng(0)
    x, w = draws.standard_normal((50, 4)), np.zeros(4)
    y = x @ np.arange(1.0, 5.0)
    for _ in range(steps):
        error = x @ w - y
        gradient = 2 * x.T @ error / len(y)
        yield {"loss": float(error @ error), "grad_norm": np.linalg.norm(gradient), "weights": w}
        w = w - rate * gradient - decay * w


def test_bits_at_the_place_and_a_tolerance_elsewhere() -> None:
    """Elsewhere means another processor, version or number of threads; the reason is told."""
    losses = [1.0, 0.5, 0.25]
    trace = Trace({"loss": losses}, place=PLACE)
    nudged = [Trace({"loss": [1.0, 0.5 * (1 + 1e-6), 0.25]})]
    golden_losses = make_golden(trace, {}, True, measured(trace, nudged))
    assert golden_losses.tolerance.numbers["loss"] == pytest.approx([5e-7, 1e-5, 1e-5], rel=1e-3)
    moved = Trace({"loss": [1.0, 0.5 * (1 + 9e-6), 0.25]}, place=PLACE)
    verdict = compare(golden_losses, moved)
    assert verdict.bits and not verdict.passed and verdict.first is not None
    assert (verdict.first.step, verdict.first.what) == (2, "loss")
    assert "step 2: loss is 0.5000045, recorded 0.5: 9.0e-6 relative" in verdict.text()
    other = dataclasses.replace(moved, place={**PLACE, "threads": 1})
    verdict = compare(golden_losses, other)
    assert verdict.passed and not verdict.bits and "threads 2, here 1" in verdict.text()
    assert verdict.nearest == pytest.approx(0.9, abs=0.01)
    far = dataclasses.replace(other, numbers={"loss": [1.0, 0.5 * (1 + 2e-5), 0.25]})
    assert "FAIL: step 2" in compare(golden_losses, far).text()
    for wrong in ([1.0, math.nan, 0.25], [1.0, 0.5]):
        for where in (PLACE, {**PLACE, "threads": 1}):
            assert not compare(golden_losses, Trace({"loss": wrong}, place=where)).passed
    broken = compare(golden_losses, Trace({"loss": []}, raised="ValueError: no"))
    assert not broken.passed and "stopped: ValueError" in broken.text()
    json.dumps([compare(golden_losses, far).content(), broken.content()], allow_nan=False)


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    """Losses, other numbers and arrays; every one of these faults is named with its step."""
    path = tmp_path / "g.json"
    made = testing.record(path, training)
    assert made.repeats and set(made.numbers) == {"loss", "grad_norm"} and "weights" in made.arrays
    for _ in range(5):
        assert testing.check(path, training).passed
    faults = {
        "rate": lambda: training(rate=0.1000001),
        "decay": lambda: training(decay=1e-9),
        "late": lambda: (x if k < 15 else {**x, "loss": x["loss"] * (1 + 1e-15)}
                         for k, x in enumerate(training())),
        "array": lambda: ({**x, "weights": x["weights"][::-1]} for x in training()),
    }  # fmt: skip
    found = {name: testing.check(path, wrong).first for name, wrong in faults.items()}
    assert {name: d and (d.step, d.what) for name, d in found.items()} == {
        "rate": (2, "loss"), "decay": (3, "loss"), "late": (16, "loss"), "array": (None, "weights"),
    }  # fmt: skip
    short = testing.check
    with pytest.raises(UserError, match="gave 3 steps, 20 were asked for"):
        short(path, lambda: training(steps=3))
    losses = [each["loss"] for each in training()]
    testing.record(path, iter(losses), source="one machine")
    verdict = testing.check(path, [x * (1 + 5e-6) for x in losses])
    assert verdict.passed and not verdict.bits and "run once only" in verdict.text()
    with pytest.raises(UserError, match="loss of step 2 is nan"):
        testing.record(path, [1.0, math.nan], steps=2)


def test_the_fixture(golden: Any, tmp_path: Path) -> None:  # noqa: F811
    """It records on request, says so, compares otherwise, and fails with the first step."""
    assert golden.name == "test_the_fixture" and golden.folder == Path(__file__).parent / "golden"
    writing = testing.GoldenLosses(tmp_path / "golden", "mine", True)
    with pytest.raises(pytest.skip.Exception, match="nothing was compared"):
        writing(training)
    comparing = testing.GoldenLosses(tmp_path / "golden", "mine", False)
    assert comparing(training).passed
    with pytest.raises(pytest.fail.Exception, match=r"FAIL: step 2: loss is"):
        comparing(lambda: training(rate=0.2))
    with pytest.raises(pytest.fail.Exception, match="DIPTYCH_GOLDEN=record"):
        comparing(training, name="none")


def test_the_commands_on_a_function(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """A file's function in a process of its own; a change of it is caught with exit code 3."""
    code = (
        "def steps():\n    w = 1.0\n    for k in range(9):\n        yield w * w\n        w *= 0.9\n"
    )
    (tmp_path / "own.py").write_text(code)
    target, out = f"{tmp_path / 'own.py'}:steps", tmp_path / "g.json"

    def told(*words: Any) -> tuple[int, str, str]:
        found: tuple[int, str, str] = call(monkeypatch, capsys, "golden", *words)
        return found

    assert told("record", target, "--steps", "9", "--out", out, "--quiet")[0] == 0
    assert told("record", target, "--out", out)[0] == 2
    (tmp_path / "own.py").write_text(code.replace("0.9", "0.9 if k < 4 else 0.8"))
    status, text, _ = told("check", out, "--json", "--quiet")
    assert status == 3 and json.loads(text)["first"]["step"] == 6
    assert told("record", target, "--steps", "99", "--out", tmp_path / "b.json")[0] == 2
    assert not (tmp_path / "b.json").exists()


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    ask = trainings.Asked
    for asked, expected in (
        (ask("tiny", steps=0), "--steps 0"),
        (ask("tiny", rtol=2.0), "--rtol"),
        (ask("tiny", resume_at=20), "--resume-at 20"),
        (ask("tiny", overrides=("train.steps=5",)), "ends at step 5"),
        (ask("tinny"), "did you mean 'tiny'"),
        (ask(str(tmp_path)), "not a run folder"),
        (ask("x.py:f", backend="torch"), "not for a function"),
    ):
        with pytest.raises(UserError, match=expected):
            trainings.record(asked)
    with pytest.raises(UserError, match="which no training runs"):
        trainings.choose(["jpeg"])
    with pytest.raises(UserError, match="is not known"):
        trainings.choose(["learning_rat"])
    assert "learning_rate" in trainings.choose(["all"])
    (tmp_path / "g.json").write_text('{"golden": 1}')
    with pytest.raises(UserError, match=r"g\.json"):
        read_golden(tmp_path / "g.json")
