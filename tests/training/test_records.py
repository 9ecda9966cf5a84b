"""A run's journal: one line per step, without gaps or repeats after any interruption."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from diptych.errors import MachineError, StopTraining, UserError
from diptych.runs import checkpoint
from diptych.training.callbacks import SCALARS, Callbacks, Function
from diptych.training.callbacks.journal import Journal, read_rows
from diptych.training.callbacks.tensorboard import TensorBoard
from diptych.training.rows import Rows
from full_disk import room_for
from properties import given, settings, st


def row(step: int, **changes: Any) -> dict[str, Any]:
    facts = {"epoch": 0, "lr": 1e-3, "data_s": 0.01, "compute_s": 0.1 + step / 3, "synced": True}
    values = {"loss": 1 / step, "grad_norm": step / 7, "memory_mb": 812.25}
    return {"step": step, **facts, **values, **changes}


class Records:
    """The rows of a call of `train` on their way into the files of its folder."""

    def __init__(self, run: Path, step: int, scalar: Callable[[Any], float] = float) -> None:
        plan: Any = "no plan: nothing of it is shown"
        tensorboard = TensorBoard(run, plan, 0, lambda kind, step: nullcontext())
        self.callbacks = Callbacks([Journal(run), tensorboard])
        self.rows = Rows(run, scalar, self.callbacks, lambda: None)
        self.add, self.flush = self.rows.add, self.rows.flush
        self.callbacks.start(step)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        self.callbacks.close(None)


def write(run: Path, first: int, last: int, resumed_at: int | None = None) -> None:
    """A call of `train`: rows `first` .. `last` after a restart at `resumed_at`."""
    run.mkdir(exist_ok=True)
    start = first - 1 if resumed_at is None else resumed_at
    with Records(run, start) as journal:
        for step in range(first, last + 1):
            journal.add(row(step))
            if step % 3 == 0:
                journal.flush()
        journal.flush()


def steps(run: Path) -> list[int]:
    return [row["step"] for row in read_rows(run / "metrics.jsonl")]


def events(run: Path) -> Iterator[Any]:
    for path in sorted((run / "tensorboard").iterdir()):
        for record in RawEventFileLoader(str(path)).Load():
            yield Event.FromString(record)


# Writing


def test_rows_are_written_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, 1, 7)
    assert read_rows(tmp_path / "metrics.jsonl") == [row(step) for step in range(1, 8)]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 8))


def test_device_scalars_are_read_only_when_the_rows_are_written(tmp_path: Path) -> None:
    """Reading one waits for the device."""
    read: list[object] = []

    def scalar(value: object) -> float:
        read.append(value)
        return 0.5

    with Records(tmp_path, 0, scalar) as journal:
        for step in (1, 2):
            journal.add(row(step, loss="device loss", grad_norm="device norm"))
        assert read == [] and not (tmp_path / "metrics.jsonl").exists()
        journal.flush()
        assert read == ["device loss", "device norm"] * 2
        journal.flush()
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_stops_the_run_and_names_the_step(
    tmp_path: Path, key: str, value: float
) -> None:
    with Records(tmp_path, 0) as journal:
        for step in range(1, 6):
            journal.add(row(step, **({key: value} if step == 4 else {})))
        with pytest.raises(UserError, match=f"^step 4: {key} is .*; training stopped, no checkp"):
            journal.flush()
    assert steps(tmp_path) == [1, 2, 3], "the rows before it are kept, and none after it"


def test_the_last_good_checkpoint_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "checkpoints" / "step-00000003"
    kept.mkdir(parents=True)
    assert checkpoint.all_checkpoints(tmp_path) == [kept]
    with Records(tmp_path, 3) as journal:
        journal.add(row(4, loss=math.nan))
        with pytest.raises(UserError, match=f"the last good checkpoint is {kept}; try a lower"):
            journal.flush()


# Going on


def test_a_resumed_run_goes_on_without_gaps_or_repeats(tmp_path: Path) -> None:
    write(tmp_path, 1, 10)
    write(tmp_path, 7, 12, resumed_at=6)
    assert steps(tmp_path) == list(range(1, 13))
    write(tmp_path, 1, 2, resumed_at=0)
    assert steps(tmp_path) == [1, 2]


def test_a_restart_drops_the_rows_that_it_repeats(tmp_path: Path) -> None:
    write(tmp_path, 1, 10)
    with Records(tmp_path, 6):
        assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]
    with Records(tmp_path, 0):
        assert steps(tmp_path) == []


def test_rewriting_keeps_every_digit(tmp_path: Path) -> None:
    write(tmp_path, 1, 9)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with Records(tmp_path, 9):
        pass
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps, to be torn."""
    run = tmp_path_factory.mktemp("run")
    write(run, 1, 5)
    return run


@given(st.data())
@settings(max_examples=40)
def test_a_journal_torn_anywhere_is_read_and_continued(torn: Path, data: st.DataObject) -> None:
    """A crash may cut the last write at any byte; the checkpoint lies at a step before that."""
    path = torn / "metrics.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    cut = data.draw(st.integers(0, len(whole)))
    complete = max(k for k in range(6) if len(b"".join(lines[:k]).rstrip()) <= cut)
    saved = data.draw(st.integers(0, complete))
    try:
        path.write_bytes(whole[:cut])
        assert steps(torn) == list(range(1, complete + 1))
        write(torn, saved + 1, 5)
        assert path.read_bytes() == whole
    finally:
        path.write_bytes(whole)
        for file in (torn / "tensorboard").iterdir():
            file.unlink()


def test_a_line_torn_in_the_middle_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{json.dumps(row(1))}\n{{"step": 2, "lo\n{json.dumps(row(3))}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: not a row of a journal"):
        read_rows(path)
    assert read_rows(tmp_path / "none.jsonl") == []


def test_a_full_disk_is_one_line_and_the_journal_can_be_continued(tmp_path: Path) -> None:
    write(tmp_path, 1, 6)
    size = (tmp_path / "metrics.jsonl").stat().st_size
    journal = Records(tmp_path, 6)
    for step in (7, 8, 9):
        journal.add(row(step))
    with room_for(size + 300), pytest.raises(MachineError, match="the disk is full"):
        journal.flush()
    journal.callbacks.close(None)
    write(tmp_path, 7, 9)
    assert steps(tmp_path) == list(range(1, 10))


# TensorBoard


def test_the_same_scalars_are_tensorboard_events(tmp_path: Path) -> None:
    write(tmp_path, 1, 4)
    seen = {
        (event.step, value.tag): value.simple_value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert seen.keys() == {(step, f"train/{key}") for step in range(1, 5) for key in SCALARS}
    for (step, tag), value in seen.items():
        assert value == np.float32(row(step)[tag.removeprefix("train/")])


def test_a_restart_tells_tensorboard_where_it_goes_on(tmp_path: Path) -> None:
    write(tmp_path, 1, 5)
    write(tmp_path, 3, 4, resumed_at=2)
    starts = [e.step for e in events(tmp_path) if e.session_log.status == SessionLog.START]
    assert starts == [1, 3]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_events_too(tmp_path: Path, channels: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (channels, 6, 9), dtype=np.uint8)
    with Records(tmp_path, 0) as journal:
        journal.callbacks.image("samples", picture, 3)
    (event,) = [event for event in events(tmp_path) if event.summary.value]
    image = event.summary.value[0].image
    assert (event.step, image.height, image.width, image.colorspace) == (3, 6, 9, channels)
    with Image.open(io.BytesIO(image.encoded_image_string)) as decoded:
        array = np.asarray(decoded)
    assert np.array_equal(array if channels == 1 else array.transpose(2, 0, 1), picture.squeeze())


def test_a_stop_hides_no_diverged_step(tmp_path: Path) -> None:
    """A callback stops at one row; the loss of a later row of the same flush is not finite."""

    def enough(row: dict[str, Any]) -> None:
        if row["step"] == 2:
            raise StopTraining

    for last, wanted in ((math.nan, UserError), (0.5, StopTraining)):
        run = tmp_path / str(last)
        run.mkdir()
        members = Callbacks([Journal(run), Function(enough)])
        rows = Rows(run, float, members, lambda: None)
        for step in (1, 2, 3):
            rows.add(row(step))
        rows.add(row(4, loss=last))
        with pytest.raises(wanted):
            rows.flush()
        assert steps(run) == [1, 2, 3] + [4] * math.isfinite(last)
