"""A study: every stage once, whatever interrupts it; failures are kept apart from results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from diptych.cli import cli
from diptych.errors import MachineError, UserError
from diptych.files import read_json
from diptych.pictures import read_png
from diptych.reproduce import Request, reproduce, runner, stages
from diptych.reproduce.difference import difference


class Fake:
    """Stands in for the processes: makes a stage's files, or fails, or is interrupted."""

    def __init__(self, out: Path, fail: str = "", stop: str = "") -> None:
        self.out, self.fail, self.stop = out, fail, stop
        self.ran: list[list[str]] = []

    def __call__(self, commands: list[list[str]], folder: Path) -> list[int]:
        assert folder == self.out
        listed = stages(Request(**self.asked))
        by_words = {tuple(runner.command(stage)): stage for stage in listed}
        group = [by_words[tuple(words)] for words in commands]
        codes = []
        for stage in group:
            if stage.name == self.stop:
                raise KeyboardInterrupt
            if stage.name == self.fail:
                codes.append(1)
                continue
            for name in stage.outputs:
                (self.out / name).touch()
            codes.append(0)
        self.ran.append([stage.name for stage in group])
        return codes

    asked: dict[str, Any]

    def go(self, parallel: bool = False, **asked: Any) -> dict[str, Any]:
        self.asked = {"preset": "mnist", **asked}
        return reproduce(Request(**self.asked), self.out, parallel=parallel, run=self)


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.study, "write", lambda out: None)


def states(study: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in study["stages"]}


def test_every_stage_is_done_once(tmp_path: Path) -> None:
    """The second call does nothing; a file that is lost is made again, and that alone."""
    out = tmp_path / "study"
    first = Fake(out)
    found = states(first.go())
    assert found.pop("scores-torch-seed0-inception") == "skipped"
    assert found.pop("scores-jittor-seed0-inception") == "skipped"
    assert set(found.values()) == {"done"} and len(found) == 15
    assert first.ran[0] == ["train-torch-seed0"] and first.ran[-1] == ["align"]
    again = Fake(out)
    assert states(again.go()) == states(read_json(out / "study.json")) and again.ran == []
    (out / "samples" / "jittor" / "grid.png").unlink()
    again.go()
    assert again.ran == [["samples-jittor"]]


def test_an_interrupted_study_goes_on_at_its_stage(tmp_path: Path) -> None:
    """Each stage in turn is interrupted; in the end every one ran exactly once."""
    out = tmp_path / "study"
    names = [stage.name for stage in stages(Request("mnist", seeds=(0, 1))) if not stage.skip]
    ran = []
    for name in names:
        fake = Fake(out, stop=name)
        with pytest.raises(KeyboardInterrupt):
            fake.go(seeds=(0, 1))
        ran += fake.ran
        assert states(read_json(out / "study.json"))[name] == "waiting"
    last = Fake(out)
    last.go(seeds=(0, 1))
    assert [name for group in ran + last.ran for name in group] == names


def test_a_failure_leaves_what_does_not_need_it(tmp_path: Path) -> None:
    """Its dependents wait, the others are done, and the next call mends it."""
    out = tmp_path / "study"
    with pytest.raises(MachineError, match="train-jittor-seed0"):
        Fake(out, fail="train-jittor-seed0").go()
    found = states(read_json(out / "study.json"))
    assert found["profile-torch"] == found["align"] == "done"
    waiting = {name for name, state in found.items() if state == "waiting"}
    assert {"train-jittor-seed0", "samples-jittor", "compare", "profile-jittor"} <= waiting
    mended = Fake(out)
    assert "waiting" not in states(mended.go()).values()
    assert mended.ran[0] == ["train-jittor-seed0"]
    assert not any("torch" in name for group in mended.ran for name in group)


def test_panels_train_together_only_where_asked(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "study")
    fake.go(parallel=True, seeds=(0, 1), only=("train",))
    assert fake.ran == [["train-torch-seed0", "train-jittor-seed0"],
                        ["train-torch-seed1", "train-jittor-seed1"]]  # fmt: skip


def test_a_linked_training_is_used_and_not_repeated(tmp_path: Path) -> None:
    """Its folder stands in the commands; a wrong one is refused."""
    run = tmp_path / "long"
    run.mkdir()
    (run / "environment.json").write_text('{"backend": "torch"}')
    fake = Fake(tmp_path / "study")
    with pytest.raises(UserError, match="was trained by torch"):
        fake.go(use=(("jittor-seed0", str(run)),))
    study = fake.go(use=(("torch-seed0", str(run)),))
    assert states(study)["train-torch-seed0"] == "skipped"
    assert study["runs"]["torch-seed0"] == str(run)
    sample = next(s for s in study["stages"] if s["name"] == "samples-torch")
    assert sample["words"][1] == str(run)
    with pytest.raises(UserError, match="not a run folder"):
        Fake(tmp_path / "b").go(use=(("torch-seed0", str(tmp_path)),))


def test_another_study_s_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "study"
    Fake(out).go(only=("train",))
    with pytest.raises(UserError, match="seeds=\\[0\\], not \\[0, 1\\]"):
        Fake(out).go(seeds=(0, 1))
    with pytest.raises(UserError, match="holds no study"):
        reproduce(Request("mnist"), tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mnits"], "did you mean 'mnist'"),
        (["mnist", "--backend", "tf"], "use torch, jittor or both"),
        (["mnist", "--seeds", "0,0"], "different numbers"),
        (["mnist", "--seeds", "a"], "whole numbers"),
        (["mnist", "--steps", "1", "--epochs", "1"], "exclude each other"),
        (["mnist", "--images", "0"], "--images must be 1 or more"),
        (["mnist", "--use", "torch-seed3=x"], "no training of this study"),
        (["mnist", "--use", "torch-seed0"], "expected NAME=RUN"),
        (["mnist", "--only", "tarin"], "did you mean 'train'"),
        (["mnist", "--set", "train.nope=1"], "is not known"),
    ],
)
def test_what_makes_no_study_is_refused(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        CliRunner().invoke(cli, ["reproduce", *words, "--out", str(tmp_path / "s")],
                           standalone_mode=False, catch_exceptions=False)  # fmt: skip
    assert not (tmp_path / "s").exists()


def test_the_difference_is_a_picture_and_its_numbers() -> None:
    a = np.zeros((4, 1, 5, 5), np.uint8)
    b = a.copy()
    b[1, 0, 2, 3] = 200
    picture, numbers = difference(a, b)
    assert numbers["values_differing"] == 1 and numbers["images_equal"] == 3
    assert (numbers["max_levels"], numbers["mean_levels"]) == (200, 2.0)
    assert picture.shape[2] > 2 * picture.shape[1] and 55 in picture
    with pytest.raises(UserError, match="draw them alike"):
        difference(a, b[:2])


TINY = ["reproduce", "mnist", "--quick", "--backend", "torch", "--only", "train,samples,batches",
        "--steps", "60", "--set", "train.batch_size=2", "--sample-steps", "2"]  # fmt: skip


@pytest.mark.torch
@pytest.mark.slow
def test_a_real_study_is_terminated_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM in the middle of the training: it saves, and the same command does the rest once."""
    out = tmp_path / "study"
    command = [sys.executable, "-m", "diptych", *TINY, "--out", str(out)]
    begun = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    journal = out / "runs" / "torch-seed0" / "metrics.jsonl"
    ends = time.monotonic() + 120
    while not (journal.is_file() and journal.read_text()) and time.monotonic() < ends:
        time.sleep(0.02)
    begun.send_signal(signal.SIGTERM)
    assert begun.wait(120) == 130
    before = len(journal.read_text().splitlines())
    assert 5 <= before < 60 and not (out / "stages").exists()
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert set(states(json.loads(done.stdout)).values()) == {"done"}
    steps = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    assert steps == list(range(1, 61))
    starts = read_json(journal.parent / "environment.json")["starts"]
    assert [start["step"] for start in starts] == [0, before]
    times = read_json(out / "batches" / "torch.json")
    assert len(times["seconds"]) == 6 and times["kernels"] is None
    assert read_png(out / "samples" / "torch" / "grid.png").any()
    kept = {path.name: os.stat(path).st_mtime_ns for path in (out / "stages").iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0 and "==" not in again.stderr
    assert kept == {path.name: os.stat(path).st_mtime_ns for path in (out / "stages").iterdir()}


def test_named_data_reach_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment: the ladder has no option for it, and packaged images refuse one."""
    monkeypatch.delenv("DIPTYCH_DATA", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    seen = []
    fake = Fake(tmp_path / "study")

    def run(commands: list[list[str]], folder: Path) -> list[int]:
        seen.append(os.environ["DIPTYCH_DATA"])
        assert not any("--data" in words for words in commands)
        return fake(commands, folder)

    fake.asked = {"preset": "mnist", "data": "/somewhere", "quick": True}
    reproduce(Request(**fake.asked), fake.out, run=run)
    assert set(seen) == {"/somewhere"} and len(seen) == 15
