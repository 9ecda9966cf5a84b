"""Checkpoints are written beside the steps; a write that fails ends the training."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import panel_jobs
from diptych.errors import MachineError
from diptych.runs import checkpoint
from diptych.training.callbacks.journal import read_rows
from diptych.training.writer import Writer
from waiting import until

CONFIG = panel_jobs.small(
    *panel_jobs.NARROW, "train.steps=8", "train.checkpoint_every=2", "train.log_every=1",
    "model.dropout=0.1", "train.keep_checkpoints=9",
)  # fmt: skip


def failing(text: str) -> None:
    raise MachineError(text)


def test_writes_follow_each_other_beside_the_caller() -> None:
    gate, seen = threading.Event(), list[int]()

    def write(number: int) -> None:
        gate.wait()
        seen.append(number)

    with Writer() as writer:
        writer.begin(write, 1)
        assert seen == [] and not writer.failed  # the caller goes on
        gate.set()
        writer.begin(write, 2)
        assert seen[:1] == [1]
        writer.wait()
        assert seen == [1, 2]
        writer.begin(write, 3)
    assert seen == [1, 2, 3]


def test_an_error_is_raised_once_where_the_write_is_waited_for(caplog: Any) -> None:
    for ask in (Writer.wait, lambda writer: writer.begin(failing, "second")):
        with Writer() as writer:
            writer.begin(failing, "first")
            until(lambda writer=writer: writer.failed)
            with pytest.raises(MachineError, match="first"):
                ask(writer)
            assert not writer.failed
            writer.wait()
    with pytest.raises(MachineError, match="last"), Writer() as writer:
        writer.begin(failing, "last")
    caplog.set_level(logging.WARNING)
    with pytest.raises(ValueError, match="other"), Writer() as writer:
        writer.begin(failing, "lost")
        raise ValueError("other")
    assert "was not written: lost" in caplog.text


def slowly_written(name: str, folder: Path, fails: bool) -> list[int]:
    """A training whose first checkpoint is written once step 3 is done, or fails; the steps that
    were done when each write began."""
    from diptych.training import loop

    began, save = list[int](), checkpoint.save

    def slow(run: Path, state: Any, *rest: Any) -> Path:
        began.append(len(read_rows(run / "metrics.jsonl")))
        if fails:
            raise MachineError(f"writing {run}: no space")
        until(lambda: len(began) > 1 or len(read_rows(run / "metrics.jsonl")) >= 3)
        return save(run, state, *rest)

    loop.checkpoint.save = slow  # type: ignore[attr-defined]
    try:
        panel_jobs.run(name, CONFIG, folder)
    finally:
        loop.checkpoint.save = save  # type: ignore[attr-defined]
    return began


def test_steps_go_on_while_a_checkpoint_is_written(panel: Any, tmp_path: Path) -> None:
    """Each holds the state of its own step, though the weights have moved on meanwhile."""
    assert len(panel.call(slowly_written, panel.name, tmp_path / "slow", False)) == 4
    panel.call(panel_jobs.run, panel.name, CONFIG, tmp_path / "plain")
    for slow, plain in zip(
        checkpoint.all_checkpoints(tmp_path / "slow"),
        checkpoint.all_checkpoints(tmp_path / "plain"), strict=True,
    ):  # fmt: skip
        manifests = [checkpoint.read_manifest(path) for path in (slow, plain)]
        assert slow.name == plain.name and manifests[0]["files"] == manifests[1]["files"]


def test_a_checkpoint_that_cannot_be_written_ends_the_training(panel: Any, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no space"):
        panel.call(slowly_written, panel.name, tmp_path / "run", True)
    assert 2 <= len(read_rows(tmp_path / "run" / "metrics.jsonl")) <= 4  # by the next checkpoint
