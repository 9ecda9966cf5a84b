"""Stages count as done only if their sources are unchanged since they ran."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from diptych.errors import Interrupted, MachineError, UserError
from diptych.files import read_json, write_json
from diptych.study.reproduce import runner
from studies import Fake, states, weigh


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "report_study", lambda out: None)


def test_stages_of_other_weights_are_done_again(tmp_path: Path) -> None:
    """And what they have left is replaced, not gone on with; also after an interruption."""
    out = tmp_path / "study"
    Fake(out).go()
    weigh(out / "runs" / "torch-seed0", '{"step": 9380}')
    stopped = Fake(out, stop="sweep-torch")
    with pytest.raises(Interrupted):
        stopped.go()
    assert states(read_json(out / "study.json"))["profile-torch"] == "waiting"
    again = Fake(out)
    assert set(states(again.go()).values()) == {"done", "skipped"}
    ran = [name for group in stopped.ran + again.ran for name in group]
    assert ran == ["samples-torch", "compare", "difference", "scores-torch-seed0-mnist",
                   "sweep-torch", "batches-torch", "profile-torch"]  # fmt: skip
    assert (stopped.anew, again.anew) == (["samples-torch", "sweep-torch"], ["sweep-torch"])
    last = Fake(out)
    last.go()
    assert last.ran == []
    (out / "runs" / "jittor-seed0" / "metrics.jsonl").write_text("another start's times")
    last.go()
    assert last.ran == [["compare"]]


def test_notes_of_earlier_versions_are_judged_by_time(tmp_path: Path) -> None:
    """They do not say what a stage was made of."""
    out = tmp_path / "study"
    Fake(out).go()
    for path in (out / "stages").iterdir():
        note = read_json(path)
        del note["made_of"]
        write_json(path, note)
    fake = Fake(out)
    fake.go()
    assert fake.ran == []
    late = time.time() + 60
    for run in (out / "runs").iterdir():
        os.utime(run / "checkpoints" / "step-00000938" / "manifest.json", (late, late))
    fake.go(only=("samples",))
    assert fake.anew == ["samples-torch", "samples-jittor"]


def test_only_some_stages_leave_the_others_as_they_are(tmp_path: Path) -> None:
    """They stay in study.json; one that is not done is not taken for done by those that need it."""
    out = tmp_path / "study"
    fake = Fake(out)
    assert set(states(fake.go(only=("train",)))) == {"train-torch-seed0", "train-jittor-seed0"}
    assert "train-torch-seed0" in states(fake.go(only=("align",)))
    with pytest.raises(MachineError):
        Fake(out, fail="samples-torch").go(only=("samples",))
    with pytest.raises(UserError, match="compare needs samples-torch, which is not done; add s"):
        fake.go(only=("compare",))
    found = states(fake.go(only=("samples", "compare")))
    assert set(found.values()) == {"done"} and len(found) == 6
