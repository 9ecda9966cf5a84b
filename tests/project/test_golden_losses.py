"""Golden losses: bits at the recorded place, a tolerance elsewhere, the first step that differs."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import call
from diptych import testing
from diptych.errors import MachineError, UserError
from diptych.golden import place, trainings
from diptych.golden.compare import compare
from diptych.golden.record import (
    ROUNDING,
    FunctionSubject,
    Trace,
    array_facts,
    make_golden,
    measured,
    read_golden,
    stated,
)
from diptych.pages.blocks import read_block
from diptych.testing import golden  # noqa: F401 - a fixture

PLACE = {"processor": "p", "frameworks": {"torch": "2"}, "threads": 2, "device": "cpu"}


SUBJECT = FunctionSubject(kind="function", function="losses")


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
    golden_losses = make_golden(trace, SUBJECT, True, measured(trace, nudged))
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


def test_what_the_record_lacks_and_a_sign_of_zero_differ() -> None:
    """A record misses what a training gives in addition, and -0.0 has other bits than 0.0."""

    def trace(**more: list[float]) -> Trace:
        weights = array_facts(np.arange(3.0))
        return Trace({"loss": [0.0, 0.5], **more}, {"ema/w": weights}, PLACE)

    made = make_golden(trace(), SUBJECT, True, stated(trace(), 1e-5, "stated"))
    assert compare(made, trace()).passed
    for here in (PLACE, {**PLACE, "threads": 1}):
        new = dataclasses.replace(trace(accuracy=[0.1, 0.2]), place=here)
        verdict = compare(made, new)
        assert (verdict.differing, verdict.compared) == (2, 5)
        assert "FAIL: step 1: accuracy is 0.1, and is not on record (2 differ)" in verdict.text()
        arrays = {**trace().arrays, "ema/b": array_facts(np.full(4, 0.5))}
        verdict = compare(made, dataclasses.replace(trace(), arrays=arrays, place=here))
        assert "after the last step: ema/b is 1.0, and is not on record" in verdict.text()
        verdict = compare(made, dataclasses.replace(trace(), arrays={}, place=here))
        assert "ema/w is missing, recorded 2.236" in verdict.text()
        json.dumps(verdict.content(), allow_nan=False)
    other = {"ema/w": {**array_facts(np.arange(3.0)), "norm": np.sqrt(5) * (1 + 2e-16)}}
    assert compare(made, dataclasses.replace(trace(), arrays=other)).passed  # BLAS's last digit
    signed = dataclasses.replace(trace(), numbers={"loss": [-0.0, 0.5]})
    verdict = compare(made, signed)
    assert verdict.differing == 1 and "step 1: loss is -0.0, recorded 0.0" in verdict.text()
    assert compare(made, dataclasses.replace(signed, place={**PLACE, "threads": 1})).passed


def test_numbers_without_a_spread_or_an_end_are_refused(tmp_path: Path) -> None:
    """A tolerance of nudges that moved nothing would be a guess; NaN in an array is one line."""
    plain = Trace({"loss": [1.0, 0.5]}, {"w": array_facts(np.ones(3))}, PLACE)
    with pytest.raises(UserError, match="no number moved"):
        measured(plain, [plain, plain])
    nan = dataclasses.replace(plain, arrays={"w": array_facts(np.array([1.0, math.nan]))})
    for traces in ((nan, [plain]), (plain, [nan])):
        with pytest.raises(UserError, match="the array w has the norm nan"):
            measured(*traces)
    path = tmp_path / "g.json"
    with pytest.raises(UserError, match="the array w has the norm nan"):
        testing.record(path, [{"loss": 1.0, "w": np.array([1.0, math.nan])}], steps=1)
    with pytest.raises(UserError, match="loss"):  # finite, but beyond what a record holds
        testing.record(path, [1e301], steps=1)
    assert not path.exists()


def test_the_place_names_processor_and_gpu(tmp_path: Path, monkeypatch: Any) -> None:
    """An ARM processor by its numbers; a GPU by its model; a function by where PyTorch computes."""
    x86, arm = (hashlib.sha256(each).hexdigest()[:8] for each in (b"avx2 fma", b"asimd fp"))
    kernel = {
        f"AMD EPYC 9654 {x86}": "processor: 0\nmodel name: AMD EPYC 9654\nflags: avx2 fma\n\n"
        "processor: 1\nmodel name: AMD EPYC 9654\nflags: fma avx2\n",
        f"CPU implementer 0x41, CPU part 0xd0b and 0xd05 {arm}": "processor: 0\n"
        "Features: fp asimd\nCPU implementer: 0x41\nCPU part: 0xd0b\n\nprocessor: 1\n"
        "Features: fp asimd\nCPU implementer: 0x41\nCPU part: 0xd05\n",
    }
    for name, text in kernel.items():
        monkeypatch.setattr(Path, "read_text", lambda _, text=text: text)
        assert place.processor() == name
    monkeypatch.undo()

    class Cuda:
        def __init__(self, *models: str) -> None:
            self.models = models

        def is_initialized(self) -> bool:
            return bool(self.models)

        def device_count(self) -> int:
            return len(self.models)

        def get_device_name(self, device: int | str) -> str:
            return self.models[int(str(device).removeprefix("cuda:"))]

    class Torch:
        get_num_threads = staticmethod(lambda: 2)

    found = []
    for models in ((), ("H100",), ("H200",), ("H100", "H200")):
        monkeypatch.setattr(Torch, "cuda", Cuda(*models), raising=False)
        monkeypatch.setitem(sys.modules, "torch", Torch)
        monkeypatch.setattr(place, "version", lambda _: "2")
        found.append(place.place())
    facts = [(each["device"], each.get("gpu")) for each in found]
    assert facts == [
        ("cpu", None), ("cuda", "H100"), ("cuda", "H200"), ("cuda", "H100 and H200"),
    ]  # fmt: skip
    assert place.place("cuda:1")["gpu"] == "H200" and "gpu" not in place.place("cpu")
    assert place.differences(found[1], found[2]) == ["gpu H100, here H200"]
    monkeypatch.delitem(sys.modules, "torch")  # Jittor: the driver's own tool tells the model
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'H100\\nH100\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert place.gpu("cuda") == "H100"
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert place.gpu("cuda") == "unknown"


def test_without_pytest(tmp_path: Path) -> None:
    """`record` and `check` import no pytest; only the fixture needs it."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from diptych import testing\n"
        "testing.record(sys.argv[1], lambda: [1.0, 0.5], steps=2)\n"
        "assert testing.check(sys.argv[1], lambda: [1.0, 0.5]).passed\n"
        "assert not testing.check(sys.argv[1], lambda: [1.0, 0.6]).passed\n"
        "try:\n    testing.golden\n"
        "except ImportError as error:\n    assert error.name == 'pytest'\n"
        "else:\n    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "g.json"], check=True)
    assert set(dir(testing)) == {"GoldenLosses", "check", "golden", "record"}


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("torch", marks=pytest.mark.torch),
        pytest.param("jittor", marks=(pytest.mark.jittor, pytest.mark.slow)),
    ],
)
def test_the_measured_tolerance_of_a_training(backend: str, monkeypatch: Any) -> None:
    """Each nudge moves the first weights, and so the numbers; the tolerance is their spread."""
    seen: list[Trace] = []

    def spy(plain: Trace, nudged: list[Trace]) -> Any:
        seen.extend((plain, *nudged))
        return measured(plain, nudged)

    monkeypatch.setattr(trainings, "measured", spy)
    small = ("model.ch=8", "model.norm_groups=8", "model.attn_resolutions=[]", "model.dropout=0",
             "train.batch_size=4")  # fmt: skip
    made = trainings.record(trainings.Asked("tiny", 2, backend, small))
    plain, *nudged = seen
    assert len(nudged) == 2 and made.repeats and made.subject.kind == "training"
    kept = [(each.numbers["loss"], each.arrays) for each in seen]
    assert all(a != b for k, a in enumerate(kept) for b in kept[:k])
    raw = {name: facts for name, facts in plain.arrays.items() if name.startswith("raw/")}
    moved = [sum(each.arrays[name] != facts for name, facts in raw.items()) for each in nudged]
    assert raw and min(moved) > len(raw) / 2
    assert made.tolerance.arrays["raw"] > ROUNDING and max(made.tolerance.numbers["loss"]) < 1e-4
    assert "10 times the largest difference of 2 runs" in made.tolerance.source


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
    assert golden.name == "test_golden_losses.test_the_fixture"
    assert golden.folder == Path(__file__).parent / "golden"
    writing = testing.GoldenLosses(tmp_path / "golden", "mine", True)
    assert writing(training).passed and writing(training, name="second").passed
    with pytest.raises(UserError, match=r"mine\.json: was recorded a moment ago"):
        writing(training)
    with pytest.raises(pytest.skip.Exception, match=r"second\.json: nothing was compared"):
        writing.finish()
    comparing = testing.GoldenLosses(tmp_path / "golden", "mine", False)
    assert comparing(training).passed
    with pytest.raises(pytest.fail.Exception, match=r"FAIL: step 2: loss is"):
        comparing(lambda: training(rate=0.2))
    with pytest.raises(pytest.fail.Exception, match="DIPTYCH_GOLDEN=record"):
        comparing(training, name="none")
    moved = testing.GoldenLosses(tmp_path / "golden", "test_file.mine", False, "mine")
    assert moved(training).passed
    with pytest.raises(pytest.fail.Exception, match=r"none\.json: no record"):
        moved(training, name="none")


OWN = """
from diptych.testing import golden


class TestOne:
    def test_it(self, golden):
        golden([1.0, 0.5], steps=2)
        golden([2.0, 0.5], steps=2, name="two")


class TestOther:
    def test_it(self, golden):
        golden([3.0, 0.5], steps=2)
"""


def test_tests_of_one_name_keep_records_of_their_own(tmp_path: Path) -> None:
    """All records of a test are written before it is skipped, at its end."""
    (tmp_path / "test_own.py").write_text(OWN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    for given, told in (("record", "2 skipped"), ("", "2 passed")):
        environment = {**os.environ, "DIPTYCH_GOLDEN": given}
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0 and told in done.stdout, done.stdout
    assert {path.name for path in (tmp_path / "golden").iterdir()} == {
        "test_own.TestOne.test_it.json", "two.json", "test_own.TestOther.test_it.json",
    }  # fmt: skip


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
    for path, why in ((out / "x", "is a file; give a folder"), (tmp_path, "is a folder; give a")):
        status, _, error = told("record", target, "--out", path, "--overwrite")
        assert status == 2 and why in error and "training 1" not in error
    (tmp_path / "own.py").write_text(code.replace("0.9", "0.9 if k < 4 else 0.8"))
    status, text, _ = told("check", out, "--json", "--quiet")
    assert status == 3 and json.loads(text)["first"]["step"] == 6
    assert told("record", target, "--steps", "99", "--out", tmp_path / "b.json")[0] == 2
    assert not (tmp_path / "b.json").exists()
    (tmp_path / "own.py").write_text(code.replace("w *= 0.9", "w *= [][0]"))
    status, _, error = told("check", out, "--quiet")
    assert status == 2 and f"{tmp_path / 'own.py'}:5: IndexError: list index out" in error
    testing.record(tmp_path / "t.json", training)
    status, _, error = told("check", tmp_path / "t.json")
    assert status == 2 and "'training' in a test" in error and "check it with its own test" in error
    for words, named in (
        (("record", target, "--device", "cuda", "--data", tmp_path), "--data and --device are"),
        (("check", out, "--data", tmp_path), "--data is"),
    ):
        more = ("--out", tmp_path / "c.json") if words[0] == "record" else ()
        status, _, error = told(*words, *more)
        assert status == 2 and f"{named} for trainings of Diptych, not for a function" in error


def test_the_workers_errors_keep_their_kind() -> None:
    """The machine's fault is exit code 1, the user's 2, and a fault of Diptych has a traceback."""
    for said, kind, text in (
        ({"error": "the disk is full", "kind": "MachineError"}, MachineError, "disk is full"),
        ({"error": "no data", "kind": "UserError"}, UserError, "no data"),
        ({"error": "KeyError: 'x'", "kind": "bug"}, RuntimeError, "worker.py"),
        ({}, MachineError, "code -9"),
    ):
        with pytest.raises(kind, match=text) as raised:
            trainings._fail(said, -9, 'Traceback\n  File "worker.py", line 3')
        assert type(raised.value) is kind


# 100 images, two epochs of one step.
FEW = ("train.steps=null", "train.epochs=2", "train.batch_size=128", "data.held_out=9900")


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    ask = trainings.Asked
    for asked, expected in (
        (ask("tiny", steps=0), "--steps 0"),
        (ask("tiny", rtol=2.0), "--rtol"),
        (ask("tiny", resume_at=20), "--resume-at 20"),
        (ask("tiny", overrides=("train.steps=5",)), "ends at step 5"),
        (ask("tiny", overrides=FEW), "ends after 2 steps; ask for fewer --steps"),
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


def test_the_page_of_the_campaign() -> None:
    """docs/golden.md holds the table of docs/golden.json, and its script names real faults."""
    place_of = Path(__file__).parents[2] / "docs" / "golden.py"
    spec = importlib.util.spec_from_file_location("docs_golden", place_of)
    assert spec is not None and spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    record = json.loads(page.RECORD.read_text("utf-8"))
    assert read_block(page.PAGE, "campaign") == page.text(record)
    shown = {name for names in page.SHOWS.values() for name in names}
    assert shown | set(page.NEEDS) <= set(trainings.choose(["all"]))
