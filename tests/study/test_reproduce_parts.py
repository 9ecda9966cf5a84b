"""A study shared by several processes: every stage is done once, and the last writes the page."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from commands import call
from diptych.errors import Interrupted, MachineError, UserError
from diptych.files import Held, hold, hold_part, read_json
from diptych.ranks import Part
from diptych.study.reproduce import StudyRequest, parts, runner
from diptych.study.reproduce.stages import Stage
from studies import Fake, states
from waiting import PATIENCE, until

ALL = 17  # stages of a study of both panels; two of them are skipped


@pytest.fixture(autouse=True)
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file with a line for each page written."""
    file = tmp_path / "pages"
    file.touch()

    def page(out: Path) -> None:
        with file.open("a") as lines:
            lines.write("page\n")

    monkeypatch.setattr(runner, "report_study", page)
    monkeypatch.setattr(parts, "POLL", 0.02)
    return file


def share(fake: Fake, text: str, **asked: Any) -> dict[str, Any]:
    fake.asked = {"preset": "mnist", **asked}
    return parts.reproduce_part(StudyRequest(**fake.asked), fake.out, Part.parse(text), run=fake)


def names(fake: Fake) -> list[str]:
    return [name for group in fake.ran for name in group]


def test_one_part_alone_does_the_whole_study_beginning_with_its_own(tmp_path, pages):
    out = tmp_path / "study"
    fake = Fake(out)
    found = states(share(fake, "1/2"))
    assert len(found) == ALL and set(found.values()) == {"done", "skipped"}
    assert names(fake)[0] == "train-jittor-seed0" and len(names(fake)) == 15
    other = Fake(out)
    assert states(share(other, "0/2")) == found and other.ran == []
    plain = Fake(out)
    plain.go()  # a plain start finds the same study done
    assert plain.ran == [] and pages.read_text() == "page\n" * 3
    assert not list(out.rglob(".*.lock"))


class Slow(Fake):
    """Stages that take a moment, listed in a file; the first of each part waits for the others'."""

    def __init__(self, out: Path, meeting: Any) -> None:
        super().__init__(out)
        self.meeting = meeting

    def __call__(self, commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        if not self.ran:
            self.meeting.wait(PATIENCE)
        time.sleep(0.02)
        ended = super().__call__(commands, folder)
        with (self.out.parent / "ran").open("a") as lines:
            lines.write(f"{self.ran[-1][0]} {os.getpid()}\n")
        return ended


def test_three_parts_at_once_do_every_stage_once(tmp_path, pages):
    """None fails, the work is shared, needs come first, and the last one writes the page."""
    out = tmp_path / "study"
    started = multiprocessing.get_context("fork")
    slow = Slow(out, started.Barrier(3))
    work = [started.Process(target=share, args=(slow, f"{k}/3")) for k in range(3)]
    for process in work:
        process.start()
    for process in work:
        process.join(PATIENCE)
    assert [process.exitcode for process in work] == [0] * 3
    ran = [line.split() for line in (tmp_path / "ran").read_text().splitlines()]
    order = [name for name, _ in ran]
    assert len(order) == len(set(order)) == 15
    assert len({number for _, number in ran}) == 3
    for stage in runner.stages(StudyRequest("mnist")):
        for need in stage.needs:
            assert stage.skip or order.index(need) < order.index(stage.name)
    assert set(states(read_json(out / "study.json")).values()) == {"done", "skipped"}
    assert "page" in pages.read_text()  # once more by a part that ends just after that
    assert not list(out.rglob(".*.lock"))


def test_a_failed_stage_is_tried_once_and_the_rest_is_done(tmp_path):
    """Its dependents wait; a new start of a part mends it."""
    out = tmp_path / "study"
    with pytest.raises(MachineError, match="failed: train-jittor-seed0"):
        share(Fake(out, fail="train-jittor-seed0"), "0/2")
    found = states(read_json(out / "study.json"))
    assert found["train-jittor-seed0"] == "failed" and found["profile-torch"] == "done"
    assert found["compare"] == "waiting"
    mended = Fake(out)
    assert not {"waiting", "failed"} & set(states(share(mended, "1/2")).values())
    assert names(mended)[0] == "train-jittor-seed0"


def test_what_another_part_has_failed_is_not_tried_again(tmp_path):
    """The other fails while this one is at work elsewhere."""
    out = tmp_path / "study"
    fake = Fake(out)

    def meanwhile(commands: list[list[str]], folder: Path) -> list[tuple[int, float]]:
        if not fake.ran:
            other = Fake(out, fail="train-jittor-seed0")
            other.asked = fake.asked
            stage = runner.stages(StudyRequest(**fake.asked))[1]
            runner.run_group([stage], out, other)
        return Fake.__call__(fake, commands, folder)

    fake.asked = {"preset": "mnist"}
    study = parts.reproduce_part(StudyRequest("mnist"), out, Part(0, 2), run=meanwhile)
    assert states(study)["train-jittor-seed0"] == "failed"
    assert "train-jittor-seed0" not in names(fake) and "align" in names(fake)


def test_an_interrupted_part_leaves_its_stage_to_others(tmp_path):
    out = tmp_path / "study"
    with pytest.raises(Interrupted, match="in train-torch-seed0"):
        share(Fake(out, stop="train-torch-seed0"), "0/2")
    assert not list(out.rglob(".*.lock"))
    other = Fake(out)
    assert "waiting" not in states(share(other, "1/2")).values()
    assert "train-torch-seed0" in names(other)


def slow_stage(stage: Stage, anew: bool = False) -> list[str]:
    """A stage as a real process: it says when it begins and ends. Training waits for the ladder."""
    touched = " ".join(shlex.quote(name) for name in stage.outputs)
    waits = "until grep -q 'end align' ../log; do sleep 0.02; done; "
    text = f"echo begin {stage.name} >> ../log; "
    text += (waits if stage.name == "train-torch-seed0" else "") + f"touch {touched}; "
    return ["sh", "-c", text + f"echo end {stage.name} >> ../log"]


def run_real(out: Path, text: str) -> None:
    parts.reproduce_part(StudyRequest("mnist", only=("train", "align")), out, Part.parse(text))


def test_the_stage_of_a_killed_part_is_done_again_when_its_process_has_ended(tmp_path, monkeypatch):
    """The part gets SIGKILL; its stage's process lives on, and keeps the stage locked.

    It ends when the other part has done all else.
    """
    monkeypatch.setattr(runner, "command", slow_stage)
    out, log = tmp_path / "study", tmp_path / "log"
    log.touch()
    started = multiprocessing.get_context("fork")
    killed = started.Process(target=run_real, args=(out, "0/2"))
    killed.start()
    until(lambda: "begin train-torch-seed0" in log.read_text())
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join(PATIENCE)
    run_real(out, "1/2")
    lines = log.read_text().splitlines()
    own = [line.split()[0] for line in lines if line.endswith("train-torch-seed0")]
    assert own == ["begin", "end", "begin", "end"]
    assert set(states(read_json(out / "study.json")).values()) == {"done"}


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, capsys):
    out = tmp_path / "study"
    share(Fake(out), "0/2", only=("align",))
    for lock in (hold_part(out, "part-1-of-2"), hold(out)):
        with lock, pytest.raises(Held, match="another process is at work"):
            share(Fake(out), "1/2", only=("align",))
    with hold_part(out, "part-1-of-2"), pytest.raises(Held):
        Fake(out).go(only=("align",))
    with pytest.raises(UserError, match="holds a study with images=10000, not 5"):
        share(Fake(out), "1/2", images=5)
    other = tmp_path / "other"
    other.mkdir()
    (other / "somebody's").touch()
    with pytest.raises(UserError, match="holds no study"):
        share(Fake(other), "0/2")
    capsys.readouterr()
    for words, said in (
        (["--part", "2/2"], "--part 2/2"),
        (["--part", "0/2", "--parallel"], "--parallel is for one process"),
    ):
        code, text, err = call(monkeypatch, capsys, "reproduce", "mnist", "--out", out, *words)
        assert code == 2 and said in err and text == "" and len(err.strip().splitlines()) == 1


def test_a_part_that_finds_others_at_work_leaves_the_page_to_them(tmp_path, pages, monkeypatch):
    """Another part holds its lock when this one ends, and is not turned away if it ends then."""
    out = tmp_path / "study"
    ready, leave = threading.Event(), threading.Event()

    def holder() -> None:
        with hold_part(out, "part-1-of-2"):
            ready.set()
            leave.wait(PATIENCE)

    thread = threading.Thread(target=holder)
    thread.start()
    assert ready.wait(PATIENCE)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "hold", lambda _: pytest.fail("the folder was held for a moment"))
        study = share(Fake(out), "0/2")
    assert "waiting" not in states(study).values() and pages.read_text() == ""
    leave.set()
    thread.join()
    share(Fake(out), "1/2")
    assert pages.read_text() == "page\n"


def test_a_part_whose_stage_failed_says_so_while_others_are_at_work(tmp_path):
    """Another part holds the folder, and will write the page."""
    fake = Fake(tmp_path / "study", fail="train-torch-seed0")
    with (
        hold_part(tmp_path / "study", "part-1-of-2"),
        pytest.raises(MachineError, match=r"failed: train-torch-seed0.*Other parts are at work"),
    ):
        share(fake, "0/2")
