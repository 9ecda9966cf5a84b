"""Logs of any program: what is read of each shape, what is told of it, what is refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from diptych.errors import UserError
from diptych.logs import read_log
from diptych.logs.columns import loss_rank, parse_columns
from diptych.logs.log import labels
from diptych.logs.readers import is_log
from diptych.logs.table import Table
from diptych.logs.text import read_text, row_of
from diptych.runs.export import export
from diptych.runs.reader import read_run
from synthetic_runs import make_rows, make_run

TRAINER = {
    "max_steps": 100,
    "log_history": [
        {"loss": 2.0, "learning_rate": 1e-4, "epoch": 0.1, "step": 10, "grad_norm": 1.0},
        {"loss": 1.5, "learning_rate": 1e-4, "epoch": 0.2, "step": 20},
        {"eval_loss": 1.0, "step": 20, "epoch": 0.2},
        {"train_runtime": 10.0, "train_loss": 1.7, "step": 20, "epoch": 0.2},
    ],
}
STAMP = (
    "INFO - diffusion.py - 2025-07-04 00:04:{:02},778 - [Epoch 0] Step: {}, Loss: {}, "
    "Step Time: 0.03{}s"
)
# name, text, steps, losses, keys of what is told
SHAPES: list[tuple[str, str, list[int], list[float], set[str]]] = [
    ("one.txt", "0.5\n0.4\n0.3\n", [1, 2, 3], [0.5, 0.4, 0.3], {"numbered"}),
    ("two.txt", "1 0.5\n2 0.4\n", [1, 2], [0.5, 0.4], set()),
    ("comma.txt", "1,100,0.5\n1,200,0.4\n2,100,0.3\n", [100, 200, 300], [0.5, 0.4, 0.3],
     {"per_epoch_seen"}),
    ("named.txt", "epoch: 1, step: 100, loss: 0.5\nepoch: 1, step: 200, loss: 4e-1\n", [100, 200],
     [0.5, 0.4], set()),
    ("stamped.txt", "\n".join(STAMP.format(10 + k, k, 0.9 - k / 10, k) for k in (1, 2)), [1, 2],
     [0.8, 0.7], set()),
    ("total.txt", "Epoch [1/10], Step [200/938], Loss: 0.5\n"
     "Epoch [2/10], Step [200/938], Loss: 0.4\n",
     [200, 1138], [0.5, 0.4], {"per_epoch"}),
    ("bare.txt", "epoch 1 step 10 loss 0.5\nepoch 1 step 20 loss 0.4\n", [10, 20],
     [0.5, 0.4], set()),
    ("epochs.txt", "Epoch 1 | Train Loss: 0.5 | Val Loss: 0.6\n"
     "Epoch 2 | Train Loss: 0.4 | Val Loss: 0.5\n",
     [1, 2], [0.5, 0.4], {"epochs_only"}),
    ("chinese.txt", "第 1 轮, 第 100 步, 损失: 0.5\n第 1 轮, 第 200 步, 损失: 0.4\n", [100, 200],
     [0.5, 0.4], set()),
    ("tqdm.txt", "Epoch 3:  45%|### | 4/9 [00:12<00:15, 33.5it/s, loss=0.5]\r"
     "Epoch 3:  55%|### | 5/9 [00:12<00:15, 33.5it/s, loss=0.4]\n", [4, 5], [0.5, 0.4], set()),
    ("printed.txt", "{'loss': 0.5, 'epoch': 0.1}\n{'loss': 0.4, 'epoch': 0.2}\n", [1, 2],
     [0.5, 0.4], {"numbered"}),
    ("tensor.txt", "step 1: tensor(0.5, grad_fn=<MeanBackward0>)\nstep 2: 0.4\n", [1, 2],
     [0.5, 0.4], set()),
    ("header.txt", "step loss\n1 0.5\n2 0.4\n", [1, 2], [0.5, 0.4], set()),
    ("a.csv", "epoch,step,loss\n1,1,0.5\n1,2,0.4\n", [1, 2], [0.5, 0.4], set()),
    ("german.csv", "step;loss\n1;0,5\n2;0,4\n", [1, 2], [0.5, 0.4], set()),
    ("wandb.csv", '"Step","pt - train/loss","pt - train/loss__MIN","pt - train/loss__MAX"\n'
     '"0","0.5","0.5","0.5"\n"50","0.4","0.4","0.4"\n', [0, 50], [0.5, 0.4], set()),
    ("wandb-history.jsonl", '{"_step":0,"_timestamp":1.7e9,"train":{"loss":0.5}}\n'
     '{"_step":1,"_timestamp":1.7e9,"train":{"loss":"NaN"}}\n', [0, 1], [0.5, math.nan],
     {"times_derived"}),
    ("trainer_state.json", json.dumps(TRAINER), [10, 20], [2.0, 1.5], {"others"}),
    ("list.json", "[0.5, 0.4]", [1, 2], [0.5, 0.4], {"numbered"}),
    ("columns.json", '{"loss": [0.5, 0.4], "step": [3, 4]}', [3, 4], [0.5, 0.4], set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "steps", "losses", "facts"), SHAPES, ids=lambda v: str(v)[:20]
)
def test_the_usual_shapes_are_read(
    tmp_path: Path, name: str, text: str, steps: list[int], losses: list[float], facts: set[str]
) -> None:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    log = read_log(path)
    assert log.step.tolist() == steps
    assert log.loss.tolist() == pytest.approx(losses, nan_ok=True)
    assert {key for key, _ in log.facts} == facts


def test_times_memory_and_settings(tmp_path: Path) -> None:
    """Units are taken from names and texts; a time that only grows is one since the start."""
    log = _log(
        tmp_path,
        "iter 10: loss 0.5, time 120.5ms, mem: 2 GB\niter 20: loss 0.4, time 121.5ms, mem: 3 GB\n",
    )
    assert log.step_s.tolist() == pytest.approx([0.1205, 0.1215])
    assert log.memory_mb.tolist() == [2048, 3072]
    for line in (
        "gpu memory (GB): 2 GB, step time (ms): 120 ms",
        "memory (GB): 2, step time (ms): 120",
        "mem_gb: 2 GB, step_time_ms: 120ms",
        "mem (MB): 2 GB, step time (ms): 0.12 s",
        "mem: 2GB, step time: 120 ms",
    ):
        log = _log(tmp_path, f"step 1 loss: 0.5, {line}\n")
        assert log.memory_mb.tolist() == [2048] and log.step_s.tolist() == pytest.approx([0.12])
    rows = "".join(f"{k},{1 / k},{k * 0.5},32\n" for k in range(1, 21))
    log = _log(tmp_path, "step,loss,time,batch_size\n" + rows, "t.csv")
    assert log.step_s[1:].tolist() == pytest.approx([0.5] * 19) and math.isnan(log.step_s[0])
    assert ("elapsed", {"column": "time"}) in log.facts and log.settings == {"batch_size": 32}
    log = _log(tmp_path, "Epoch 1 step 1 loss 0.5\nEpoch 1 took, time: 30.5s\n")
    assert log.epoch_seconds == {1: 30.5} and log.without_loss == 1


def _log(folder: Path, text: str, name: str = "log.txt", **columns: str) -> Any:
    path = folder / name
    path.write_text(text, "utf-8")
    return read_log(path, columns)


def test_resumed_repeated_and_missing_rows(tmp_path: Path) -> None:
    """A step that goes back supersedes all rows from it on, also those not reached again."""
    rows = [(k, 1.0) for k in range(1, 11)] + [(k, 2.0) for k in range(6, 9)]
    log = _log(tmp_path, "step,loss\n" + "".join(f"{k},{x}\n" for k, x in rows), "r.csv")
    assert log.step.tolist() == list(range(1, 9)) and log.loss.tolist() == [1.0] * 5 + [2.0] * 3
    assert log.restarts == (5,) and log.repeated == 5
    assert ("resumed", {"steps": [5]}) in log.facts
    log = _log(tmp_path, "step,loss\n1,1\n2,1\n2,3\n3,1\n", "d.csv")
    assert log.loss.tolist() == [1, 3, 1] and log.repeated == 1 and not log.restarts
    log = _log(
        tmp_path, "step,loss\n" + "".join(f"{k},1\n" for k in (50, 100, 150, 300, 350)), "g.csv"
    )
    assert (log.stride, log.gaps, log.missing) == (50, ((200, 250),), 2)
    log = _log(tmp_path, "step,loss\n1,1\n2,1\n3", "torn.csv")
    assert log.torn and log.step.tolist() == [1, 2]


def test_a_resumed_log_whose_steps_begin_anew_keeps_its_epochs(tmp_path: Path) -> None:
    """Epochs 1, 2 (half), again 2, 3: only the half is superseded."""
    parts = [(1, 100, 1.0), (2, 50, 2.0), (2, 100, 3.0), (3, 100, 4.0)]
    rows = [(e, k, x) for e, n, x in parts for k in range(1, n + 1)]
    text = "epoch,step,loss\n" + "".join(f"{e},{k},{x}\n" for e, k, x in rows)
    log = _log(tmp_path, text, "r.csv")
    assert log.step.tolist() == list(range(1, 301)) and log.repeated == 50
    assert log.loss.tolist() == [1.0] * 100 + [3.0] * 100 + [4.0] * 100
    assert log.restarts == (100,) and ("per_epoch_seen", {"n": 100}) in log.facts
    log = _log(tmp_path, text[: text.index("3,1,")], "half.csv")  # one new epoch, one restart
    assert log.step.tolist() == list(range(1, 201)) and log.restarts == (100,)
    # Steps that go on over epochs: a restart in the epoch before is no new epoch.
    rows = [(1 + k // 100, k, 1.0) for k in [*range(1, 251), *range(201, 301), *range(250, 320)]]
    text = "epoch,step,loss\n" + "".join(f"{e},{k},{x}\n" for e, k, x in rows)
    log = _log(tmp_path, text, "on.csv")
    assert log.step.tolist() == list(range(1, 320)) and log.restarts == (200, 249)


def test_a_step_takes_data_and_computation(tmp_path: Path) -> None:
    """Our own records, read as a log of any program: rows, and TensorBoard's scalars."""
    rows = "step,loss,data_s,compute_s\n1,0.5,0.25,0.5\n2,0.4,0.5,0.5\n"
    log = _log(tmp_path, rows, "m.csv")
    assert (
        log.step_s.tolist() == [0.75, 1.0] and log.columns.of["step_time"] == "data_s + compute_s"
    )
    assert ("summed", {"column": "data_s + compute_s"}) in log.facts
    log = _log(tmp_path, rows, "m.csv", step_time="compute_s")
    assert log.step_s.tolist() == [0.5, 0.5] and not log.facts
    writer = EventFileWriter(str(tmp_path / "tb"))
    for tag, value in (("loss", 0.5), ("data_s", 0.25), ("compute_s", 0.5)):
        scalar = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=1, wall_time=1.0, summary=scalar))
    writer.close()
    assert read_log(tmp_path / "tb").step_s.tolist() == [0.75]


REFUSED = [
    ("", "is empty"), ("  \n", "is empty"), ("a,b\nx,y\n", "no numbers"),
    ("step,acc\n1,2\n", "no column looks like a loss (columns: 'step', 'acc')"),
    ("a\0b", "is not text"), ("step,step,loss\n1,2,3\n", "two columns are named 'step'"),
    ("step,loss\n0.5,1\n1.5,2\n", "which is not a step"),
    ("step,loss\n" + "".join(f"{k % 3},1\n" for k in range(60)), "the steps go back"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[why for _, why in REFUSED])
def test_bad_logs_get_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UserError) as refused:
        _log(tmp_path, text, "x.csv")
    assert expected in str(refused.value) and "x.csv" in str(refused.value)


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08\x00", b"PK\x03\x04\x14\x00", b"\xfd7zXZ\x00"])
def test_a_packed_log_is_refused_by_name(tmp_path: Path, magic: bytes) -> None:
    path = tmp_path / "log.txt.gz"
    path.write_bytes(magic + bytes(range(200)))
    with pytest.raises(UserError, match=r"log\.txt\.gz: is compressed; unpack it first"):
        read_log(path, {})


# text, steps, losses: counters without a name, and losses that are none of the training
PLACES: list[tuple[str, list[int], list[float]]] = [
    ("[0/400] loss: 0.5\n[10/400] loss: 0.4\n", [0, 10], [0.5, 0.4]),
    ("(3/9) loss=0.5\n(4/9) loss=0.4\n", [3, 4], [0.5, 0.4]),
    ("INFO - [Epoch 0][98/100] lr: 1e-4 loss: 0.5\nINFO - [Epoch 0][99/100] lr: 1e-4 loss: 0.4\n",
     [98, 99], [0.5, 0.4]),
    ("step: 5 [1/2] loss: 0.5\nstep: 6 [2/2] loss: 0.4\n", [5, 6], [0.5, 0.4]),
    ("step 0: train loss 4.2, val loss 4.3\niter 0: loss 4.1, time 9ms\n"
     "iter 10: loss 3.9, time 9ms\niter 20: loss 3.7, time 9ms\n"
     "step 20: train loss 3.6, val loss 3.8\n",
     [0, 10, 20], [4.1, 3.9, 3.7]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "steps", "losses"), PLACES, ids=[c[0][:16] for c in PLACES])
def test_bracketed_counters_and_validation_losses(
    tmp_path: Path, text: str, steps: list[int], losses: list[float]
) -> None:
    """`[12/400]` is a step, and `val loss 4.3` is no training loss."""
    log = _log(tmp_path, text)
    assert log.step.tolist() == steps and log.loss.tolist() == losses


# text, steps, losses, facts
COMMAS: list[tuple[str, list[int], list[float], dict[str, Any]]] = [
    ("Step 1,000, loss: 1,999.00\nStep 2,000/10,000, loss: 0.5\n", [1000, 2000], [1999, 0.5],
     {"thousands": 3}),
    ("step: 999, loss: 0.5\nstep: 1,234,567: 0.4\n", [999, 1234567], [0.5, 0.4], {"thousands": 1}),
    ("第 1 轮, 第 1,000 步, 损失: 0.5\n", [1000], [0.5], {"thousands": 1}),
    ("step 1 loss: 0,345\nstep 2 loss: 0.4\nstep 3 loss: 1,5\n", [2], [0.4], {"unclear": 2}),
    ("step 1 loss: 1,000,00\nstep 2 loss: 0.5\n", [2], [0.5], {"unclear": 1}),
    ("step 100,0.5\nstep 200,0.4\n", [100, 200], [0.5, 0.4], {}),
    ("betas: 0.9,0.999 step 5 loss 0.5\n", [5], [0.5], {}),
    ("900 0.5\n1,000 0.4\n1,100 0.3\n", [900, 1000, 1100], [0.5, 0.4, 0.3], {"thousands": 2}),
    ("900, 0.5\n1,000, 0.4\n", [900, 1000], [0.5, 0.4], {"thousands": 1}),
    ("step loss\n900 0.5\n1,000 0.4\n", [900, 1000], [0.5, 0.4], {"thousands": 1}),
    ('step,loss\n"1,000","1,999.00"\n"1,001",0.5\n', [1000, 1001], [1999, 0.5], {"thousands": 3}),
    ("step;loss\n1,000;0.5\n2,000;0.4\n", [1000, 2000], [0.5, 0.4], {"thousands": 2}),
    ("step;loss\n1;1,125\n2;1,250\n", [1, 2], [1.125, 1.25], {}),
    ("step\tloss\n1\t1,125\n2\t0,250\n", [1, 2], [1.125, 0.25], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "steps", "losses", "facts"), COMMAS, ids=[c[0][:20] for c in COMMAS]
)
def test_commas_in_numbers(
    tmp_path: Path, text: str, steps: list[int], losses: list[float], facts: dict[str, int]
) -> None:
    """Thousands are one number, and told; what may be anything is left out, and counted."""
    log = _log(tmp_path, text)
    assert log.step.tolist() == steps and log.loss.tolist() == losses
    assert {key: fact["n"] for key, fact in log.facts} == facts


def test_long_lines_take_linear_time() -> None:
    """Lines of 50 kB on which a search of quadratic time (or worse) takes hours."""
    n = 50_000
    for line in ("a" * n, "a." * (n // 2), "a/" * (n // 2), "a " * (n // 2), "loss" + " " * n,
                 "loss: " + "1" * n + "x", "1" * n + "x", "1 " * (n // 2) + "x", "损失" * (n // 2),
                 "loss (" + "a" * n, "1%|" * (n // 3), "1:" * (n // 2), "1/" * (n // 2),
                 "," * n, "1," * (n // 2) + "x", "loss: " + "1,000" * (n // 5) + "x"):  # fmt: skip
        table = Table("text")
        read_text([line], table, Path("x"))
        assert len(table.rows) + table.skipped == 1
    assert row_of("x" * 200 + ": 1, loss: 0.5", Table("text")) == {"loss": 0.5}  # no such name


STATE = json.dumps(TRAINER, indent=2)
ROWS = '[{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}, {"step": 3, "loss": 0.3}]'
CUT = {
    "state": STATE[: STATE.index('"eval_loss"')],
    "state in one line": json.dumps(TRAINER)[:150],
    "rows": ROWS[:-9],
    "rows, a line each": ROWS.replace("}, ", "},\n")[:-9],
    "numbers": "[0.5, 0.4, 0.3",
    "columns": json.dumps({"loss": [0.5, 0.4], "step": [1, 2]}, indent=1)[:30],
    "a key twice": ROWS.replace('"loss": 0.4', '"loss": 0.4, "loss": 0.2'),
    "a key twice in the state": STATE.replace('"step": 10,', '"step": 10, "step": 11,'),
    "a key twice in each line": '{"loss": 1, "loss": 2}\n{"loss": 1, "loss": 2}\n',
    "one torn line": '{"step": 1, "loss": 0.5',
    "objects, one after another": '{\n"loss": 0.5\n}\n{\n"loss": 0.4\n}\n',
}


@pytest.mark.parametrize("name", CUT)
def test_damaged_json_is_refused(tmp_path: Path, name: str) -> None:
    """It is never read as text, with rows lost or invented."""
    with pytest.raises(UserError, match="cannot be read as JSON"):
        _log(tmp_path, CUT[name], "x.json")


def test_what_only_begins_like_json_is_read(tmp_path: Path) -> None:
    for text in ("[1/9] loss: 0.5\n[2/9] loss: 0.4\n", "[Epoch 1] loss 0.5\n[Epoch 1] loss 0.4\n",
                 '{"loss": 0.5}\n{"loss": 0.4}\n{"lo'):  # fmt: skip
        assert _log(tmp_path, text).loss.tolist() == [0.5, 0.4]
    log = _log(tmp_path, '{\n"step": 7,\n"loss": 0.5\n}\n')
    assert (log.step.tolist(), log.loss.tolist(), log.without_loss) == ([7], [0.5], 0)


def test_columns_are_set_and_misspellings_named(tmp_path: Path) -> None:
    text = "it,train/loss,loss, other\n1,0.5,9,1\n2,0.4,9,2\n"
    log = _log(tmp_path, text, "c.csv", loss="train/loss", step="it")
    assert log.loss.tolist() == [0.5, 0.4] and log.columns.given == ("loss", "step")
    assert parse_columns("loss=a, b,step=s") == {"loss": "a, b", "step": "s"}
    with pytest.raises(UserError, match="has no column 'trainloss' for loss; did you mean"):
        _log(tmp_path, text, "c.csv", loss="trainloss")
    for wrong in ("loss", "los=a", "loss="):
        with pytest.raises(UserError, match="--columns"):
            parse_columns(wrong)
    ranks = ["loss", "train/loss", "run - train/loss", "avg_loss"]
    assert [loss_rank(name) for name in ranks] == [0, 1, 2, 3]
    assert loss_rank("val_loss") is None and loss_rank("eval/loss") is None


def test_labels_tell_logs_apart() -> None:
    paths = [Path("jt/logs/loss_step.txt"), Path("pt/logs/loss_step.txt")]
    assert labels(paths) == ["jt", "pt"]
    assert labels([Path("a.csv"), Path("b.csv")]) == ["a.csv", "b.csv"]
    with pytest.raises(UserError, match="--label: give one for each log, all different"):
        labels(paths, ("x", "x"))


def test_a_folder_that_holds_runs_is_no_log(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "a", "torch", make_rows(3))
    assert not is_log(run.parent) and not is_log(run) and is_log(run / "metrics.jsonl")
    with pytest.raises(UserError, match=f"give a run in it, such as {re.escape(str(run))}$"):
        read_run(run.parent)


def events(folder: Path, steps: range, tag: str = "train/loss", wall: float = 1.7e9) -> Path:
    """An event file with a loss of 1 / step."""
    writer = EventFileWriter(str(folder))
    for step in steps:
        value = Summary.Value(tag=tag, simple_value=1 / step)
        writer.add_event(
            Event(step=step, wall_time=wall + step / 4, summary=Summary(value=[value]))
        )
    writer.close()
    return next(folder.glob("*tfevents*"))


def test_event_files_whole_resumed_and_damaged(tmp_path: Path) -> None:
    path = events(tmp_path / "a", range(1, 41))
    log = read_log(path)
    assert log.loss.tolist() == pytest.approx([1 / k for k in range(1, 41)]) and not log.torn
    assert log.step_s[1:].tolist() == pytest.approx([0.25] * 39)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    log = read_log(path)
    assert log.torn and log.step[-1] == 39
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF  # in a length
    path.write_bytes(bytes(broken))
    log = read_log(tmp_path / "a")
    assert log.step[-1] < 39 and (log.torn or any(key == "damaged" for key, _ in log.facts))
    broken = bytearray(whole)
    broken[-5] ^= 0xFF  # in the last record's data, whose checksum follows
    path.write_bytes(bytes(broken))
    log = read_log(path)
    assert log.step[-1] == 39 and "damaged" in dict(log.facts) and not log.torn
    path.write_bytes(b"no events at all" * 3)
    with pytest.raises(UserError, match="no scalar can be read"):
        read_log(path)


def test_an_exported_run_reads_back_to_the_bit(tmp_path: Path) -> None:
    rows = make_rows(30, per_epoch=10)
    rows[4]["loss"] = math.nan
    rows[9]["validation_loss"] = 0.25
    run = make_run(tmp_path / "run", "torch", rows)
    found = export(run, tmp_path / "out")
    assert found["steps"] == 30 and found["gaps"] == []
    wanted = np.array([row["loss"] for row in rows])
    for name in ("loss_step.txt", "metrics.csv"):
        log = read_log(tmp_path / "out" / name)
        np.testing.assert_array_equal(log.loss.astype(np.float32), wanted.astype(np.float32))
        assert log.step.tolist() == list(range(1, 31)) and log.epoch.tolist() == [
            k // 10 for k in range(30)
        ]
    assert log.step_s.tolist() == pytest.approx([r["data_s"] + r["compute_s"] for r in rows])
    assert read_log(run).step_s.tolist() == pytest.approx(log.step_s.tolist())
    export(run)
    assert (run / "metrics.csv").read_text() == (tmp_path / "out" / "metrics.csv").read_text()
    head, *body = (run / "metrics.csv").read_text().splitlines()
    assert head.endswith(",validation_loss")
    assert [line.rpartition(",")[2] for line in body] == [""] * 9 + ["0.25"] + [""] * 20
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="does not write"):
        export(run, tmp_path / "out", overwrite=True)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        export(run, tmp_path / "loop")


HELD_OUT = {
    "tags.txt": "[Train] Epoch: {e}, Loss: {a}\n[Val] Epoch: {e}, Loss: {b}\n",
    "words.txt": "2026-01-02 10:00:00 INFO Epoch {e}, loss: {a}\n"
    "2026-01-02 10:00:01 INFO Validation: epoch {e}, loss: {b}\n",
    "chinese.txt": "训练 epoch: {e}, loss: {a}\n验证 epoch: {e}, loss: {b}\n",
    "rows.jsonl": '{{"epoch": {e}, "loss": {a}, "split": "train"}}\n'
    '{{"epoch": {e}, "loss": {b}, "split": "val"}}\n',
    "nested.jsonl": '{{"epoch": {e}, "loss": {a}, "mode": "train"}}\n'
    '{{"epoch": {e}, "loss": {b}, "mode": "test_set"}}\n',
    "phases.csv": "{e},train,{a}\n{e},valid,{b}\n",
    "both.txt": "Val loss: {b}, Train loss: {a}, epoch: {e}\n",
    "names.csv": "{e},{a},{b},{b},{b}\n",
}
HEADS = {
    "phases.csv": "epoch,phase,loss\n",
    "names.csv": "epoch,loss,dev_loss,vali_loss,验证损失\n",
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_rows_of_validation_are_not_the_training_loss(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = [HELD_OUT[name].format(e=e, a=1 / e, b=9 + e) for e in range(1, 8)]
    path.write_text(HEADS.get(name, "") + "".join(lines))
    log = read_log(path)
    assert log.loss.tolist() == pytest.approx([1 / e for e in range(1, 8)])
    apart = name not in ("both.txt", "names.csv")
    assert log.without_loss == (7 if apart else 0)


def test_a_chart_of_wandb_whose_run_has_an_equals_sign(tmp_path: Path) -> None:
    path = tmp_path / "chart.csv"
    name = "lr=0.1 - train/loss"
    head = f'"Step","{name}","{name}__MIN","{name}__MAX"\n'
    path.write_text(head + "".join(f'"{k}","{k / 7}","0","1"\n' for k in range(1, 5)))
    log = read_log(path)
    assert log.loss.tolist() == pytest.approx([k / 7 for k in range(1, 5)])
    assert log.step.tolist() == [1, 2, 3, 4]


def test_an_epoch_that_is_no_number_and_a_line_of_any_length_are_read(tmp_path: Path) -> None:
    text = "step,loss,epoch,epoch_time\n1,0.5,nan,3\n2,0.4,1,4\n3,0.3,inf,4\n"
    found = _log(tmp_path, text, "epochs.csv")
    assert found.loss.tolist() == [0.5, 0.4, 0.3] and found.epoch.min() >= 0
    long = "x" * 200_000
    assert _log(tmp_path, f"{long}\nstep 1 loss 0.5\nstep 2 loss 0.4\n").step.tolist() == [1, 2]
