"""A study: every stage runs once despite any interruption; failures are kept apart from results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import rank_jobs
from diptych.cli import cli
from diptych.errors import Interrupted, MachineError, UserError
from diptych.figures.grids import read_png
from diptych.files import read_json
from diptych.study.reproduce import StudyRequest, reproduce, runner, stages
from diptych.study.reproduce.difference import difference
from studies import Fake, states
from waiting import PATIENCE, until

WRITE_PAGE = runner.report_study


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "report_study", lambda out: None)


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
    names = [stage.name for stage in stages(StudyRequest("mnist", seeds=(0, 1))) if not stage.skip]
    ran = []
    for name in names:
        fake = Fake(out, stop=name)
        with pytest.raises(Interrupted, match=f"in {name}; the same command goes on"):
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
    assert found["train-jittor-seed0"] == "failed"
    waiting = {name for name, state in found.items() if state == "waiting"}
    assert {"samples-jittor", "compare", "profile-jittor"} <= waiting
    mended = Fake(out)
    assert not {"waiting", "failed"} & set(states(mended.go()).values())
    assert mended.ran[0] == ["train-jittor-seed0"]
    assert not any("torch" in name for group in mended.ran for name in group)


def test_panels_train_together_only_where_asked(tmp_path: Path) -> None:
    fake = Fake(tmp_path / "study")
    fake.go(parallel=True, seeds=(0, 1), only=("train",))
    assert fake.ran == [["train-torch-seed0", "train-jittor-seed0"],
                        ["train-torch-seed1", "train-jittor-seed1"]]  # fmt: skip


def test_without_a_run_there_is_no_page_and_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A study that has trained nothing yet ends well; one whose first training fails says that."""
    monkeypatch.setattr(runner, "report_study", WRITE_PAGE)
    assert states(Fake(tmp_path / "a").go(only=("align",))) == {"align": "done"}
    assert "no report yet" in capsys.readouterr().err
    with pytest.raises(MachineError, match="failed: train-torch-seed0; see their output"):
        Fake(tmp_path / "b", fail="train-torch-seed0").go(only=("train",), backends=("torch",))


def test_a_report_that_fails_hides_no_failed_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(out: Path) -> None:
        raise UserError("no page")

    monkeypatch.setattr(runner, "report_study", broken)
    with pytest.raises(MachineError, match="failed: align"):
        Fake(tmp_path / "a", fail="align").go()
    with pytest.raises(UserError, match="no page"):
        Fake(tmp_path / "b").go()


def test_the_seconds_of_all_starts_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after 10 s, failed after 10 s, then done in 10 s: 30 s; lost and remade: 10 s."""
    now = iter(range(0, 10_000, 10))
    monkeypatch.setattr(runner.time, "monotonic", lambda: next(now))
    out, asked = tmp_path / "study", {"only": ("train",), "backends": ("torch",)}
    name = "train-torch-seed0"
    with pytest.raises(Interrupted):
        Fake(out, stop=name).go(**asked)
    with pytest.raises(MachineError):
        Fake(out, fail=name).go(**asked)
    assert read_json(out / "study.json")["stages"][0]["seconds"] == 20
    assert Fake(out).go(**asked)["stages"][0]["seconds"] == 30
    (out / "runs" / "torch-seed0" / "metrics.jsonl").unlink()
    assert Fake(out).go(**asked)["stages"][0]["seconds"] == 10


def test_another_study_s_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "study"
    Fake(out).go(only=("train",))
    with pytest.raises(UserError, match="seeds=\\[0\\], not \\[0, 1\\]"):
        Fake(out).go(seeds=(0, 1))
    with pytest.raises(UserError, match="holds no study"):
        reproduce(StudyRequest("mnist"), tmp_path)


def test_the_classifier_of_the_scores_is_that_of_the_images() -> None:
    names = [
        stage.name for stage in stages(StudyRequest("mnist", overrides=("data.source=cifar10",)))
    ]
    assert "scores-torch-seed0-inception" in names and "scores-torch-seed0-mnist" not in names


def test_without_inception_weights_a_sweep_times_alone() -> None:
    """Colour images have no other features: the scores are skipped, seconds an image are not."""
    found = {stage.name: stage for stage in stages(StudyRequest("cifar10"))}
    assert found["scores-torch-seed0-inception"].skip
    words = found["sweep-torch"].words
    assert not found["sweep-torch"].skip and "--features" not in words
    assert words[words.index("--metrics") + 1] == "none"
    later = {stage.name: stage for stage in stages(StudyRequest("cifar10", inception="w.pth"))}
    assert later["sweep-torch"].words[-2:] == words[-2:] and "w.pth" in later["sweep-torch"].words
    assert "none" not in later["sweep-torch"].words


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
        (["mnist", "--only", "samples"], "samples-torch needs train-torch-seed0, which is not"),
        (["mnist", "--sweep-steps", "10,abc"], "--sweep-steps 10,abc: give whole numbers"),
        (["mnist", "--sweep-steps", "10,10"], "--sweep-steps: give one or more different"),
        (["mnist", "--sweep-steps", "1001"], "1001"),
        (["mnist", "--sweep-etas", "-1"], "eta is -1"),
        (["mnist", "--sample-steps", "1001"], "1001"),
        (["mnist", "--inception", "no.pth"], "no such weights file"),
        (["mnist", "--data", "no-folder"], "--data .*no-folder: not found"),
        (["mnist", "--device", "gpu"], "device 'gpu' is not known"),
        (["mnist", "--steps", "0"], "train.steps"),
        (["mnist", "--epochs", "0"], "train.epochs"),
        (["mnist", "--seeds", str(2**63)], "seed"),
        (["mnist", "--use", "torch-seed0=a", "--use", "torch-seed0=b"], "names a training twice"),
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
        "--steps", "20", "--set", "train.batch_size=2", "--sample-steps", "2"]  # fmt: skip


# The same command, whose training waits at step 11 for a signal.
HELD = """
from diptych.cli import main
from diptych.study.reproduce import runner

command = runner.command
runner.command = lambda stage, anew=False: (
    [(words := command(stage, anew))[0], "-m", "rank_jobs", "held:11:0", *words[2:]]
)
main()
"""


@pytest.mark.torch
@pytest.mark.slow
def test_a_real_study_is_terminated_and_goes_on(tmp_path: Path) -> None:
    """SIGTERM in the middle of the training: it saves, and the same command does the rest once."""
    out = tmp_path / "study"
    command = [sys.executable, "-m", "diptych", *TINY, "--out", str(out)]
    begun = subprocess.Popen(
        [sys.executable, "-c", HELD, *command[3:]], env=rank_jobs.environment(),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    journal = out / "runs" / "torch-seed0" / "metrics.jsonl"

    def at_work() -> bool:
        assert begun.poll() is None, begun.communicate()[1]
        return journal.is_file() and journal.read_text().count("\n") >= 10

    until(at_work)
    begun.send_signal(signal.SIGTERM)
    said = begun.communicate(timeout=PATIENCE)[1]
    assert begun.returncode == 143
    before = len(journal.read_text().splitlines())
    assert before in (10, 11)
    assert said.count("interrupted") == 1 and "go on with" not in said and "Traceback" not in said
    assert said.endswith("diptych: interrupted in train-torch-seed0; the same command goes on\n")
    (noted,) = (out / "stages").iterdir()
    assert read_json(noted)["state"] == "interrupted"
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert set(states(json.loads(done.stdout)).values()) == {"done"}
    steps = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    assert steps == list(range(1, 21))
    starts = read_json(journal.parent / "environment.json")["starts"]
    assert [start["step"] for start in starts] == [0, before]
    times = read_json(out / "batches" / "torch.json")
    assert len(times["seconds"]) == 6 and times["kernels"] is None
    assert read_png(out / "samples" / "torch" / "grid.png").any()
    kept = {path.name: os.stat(path).st_mtime_ns for path in (out / "stages").iterdir()}
    again = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert again.returncode == 0 and "==" not in again.stderr
    assert kept == {path.name: os.stat(path).st_mtime_ns for path in (out / "stages").iterdir()}


def test_named_data_reach_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment: the ladder has no option for it, and packaged images refuse one."""
    monkeypatch.delenv("DIPTYCH_DATA", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    seen = []
    fake = Fake(tmp_path / "study")

    def run(commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        seen.append(os.environ["DIPTYCH_DATA"])
        assert not any("--data" in words for words in commands)
        return fake(commands, folder)

    fake.asked = {"preset": "mnist", "data": str(tmp_path), "quick": True}
    reproduce(StudyRequest(**fake.asked), fake.out, run=run)
    assert set(seen) == {str(tmp_path)} and len(seen) == 15
