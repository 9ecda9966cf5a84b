"""`diptych watch` and `diptych list`: what a run's files tell, without touching them."""

from __future__ import annotations

import json
import math
import os
import shutil
import time

import pytest

from commands import call
from diptych.cli.watch import PLAIN, block, sparkline
from diptych.errors import UserError
from diptych.files import hold
from diptych.runs import status
from diptych.runs.status import Follower, find_runs, nearest_preset, newest_score
from synthetic_runs import make_rows, make_run


def ended(row):
    return row | {"ended": 1000.0 + row["step"] * 0.5}


@pytest.fixture
def run(tmp_path):
    rows = make_rows(60, change=ended)
    rows[39]["validation_loss"] = 0.5
    made = make_run(tmp_path / "runs" / "a", "jittor", rows, train={"steps": 100})
    (made / "grids").mkdir()
    for step in (20, 40):
        (made / "grids" / f"step-{step:08d}.png").write_bytes(b"x")
    return made


def snapshot(folder):
    return {
        str(p): (p.stat().st_mtime_ns, p.stat().st_size, p.stat().st_ino)
        for p in [folder, *folder.rglob("*")]
    }


def test_a_run_is_told_and_not_touched(run):
    before = snapshot(run)
    found = Follower(run).read()
    assert snapshot(run) == before
    assert (found.state, found.backend, found.step, found.steps) == ("stopped", "jittor", 60, 100)
    assert found.validation == (40, 0.5) and found.steps_per_s == pytest.approx(2.0)
    assert found.grid is not None and found.grid.name == "step-00000040.png"
    assert found.smoothed == pytest.approx(sum(found.losses) / 60)
    assert found.seconds_left is None and len(found.losses) == 60
    text = "\n".join(block(found))
    assert "step        60 of 100 (60%), epoch 1" in text and "0.5000 at step 40" in text


def test_new_rows_are_followed_and_a_torn_line_waits(run):
    follower, path = Follower(run), run / "metrics.jsonl"
    assert follower.read().step == 60
    line = json.dumps(ended(make_rows(61)[-1])) + "\n"
    with path.open("a") as file:
        file.write(line[:25])
    assert follower.read().step == 60 and follower.read().unread == 0
    with path.open("a") as file:
        file.write(line[25:])
    found = follower.read()
    assert found.step == 61 and len(found.losses) == 61 and found.unread == 0
    with path.open("a") as file:
        file.write("not a row\n")
    assert follower.read().unread == 1


def test_a_file_written_anew_is_read_anew(run):
    """As a resumed run does, which drops the rows after its checkpoint."""
    follower, path = Follower(run), run / "metrics.jsonl"
    follower.read()
    fresh = run / "fresh"
    fresh.write_text("".join(path.read_text().splitlines(keepends=True)[:50]))
    os.replace(fresh, path)
    found = follower.read()
    assert found.step == 50 and len(found.losses) == 50


def test_of_a_long_file_only_the_end_is_read(run):
    whole = Follower(run).read()
    found = Follower(run, most_bytes=2000).read()
    assert found.step == 60 and 0 < len(found.losses) < 20 and found.unread == 0
    assert list(found.losses) == list(whole.losses[-len(found.losses) :])


def test_running_stopped_and_complete(run, monkeypatch):
    follower = Follower(run)
    with hold(run):
        found = follower.read()
        assert found.state == "running" and found.seconds_left == pytest.approx(20.0)
        # Of a run on another machine only its growing files are seen.
        monkeypatch.setattr(status, "_locked", set)
        assert follower.read().state == "running"
        old = time.time() - 2 * status.QUIET_ALONE_S
        for path in run.iterdir():
            os.utime(path, (old, old))
        os.utime(run / ".lock", (old, old))
        assert follower.read().state == "stopped"
    assert follower.read().state == "stopped"
    (run / "checkpoints" / "step-00000100").mkdir(parents=True)
    assert follower.read().state == "complete"


def test_locks_are_seen_where_the_system_shows_them(tmp_path, monkeypatch):
    with hold(tmp_path):
        found = (tmp_path / ".lock").stat()
        if listed := status._locked():  # a sandbox may list none
            assert (found.st_dev, found.st_ino) in listed
    lines = tmp_path / "locks"
    monkeypatch.setattr(status, "LOCKS", lines)
    assert status._locked() == set()
    lines.write_text(
        "1: FLOCK  ADVISORY  WRITE 1523 fe:0a:1180 0 EOF\n"
        "1: -> FLOCK  ADVISORY  WRITE 77 fe:0a:1180 0 EOF\n"
        "2: POSIX  ADVISORY  READ 9 <none>:0 0 EOF\n"
    )
    assert status._locked() == {(os.makedev(0xFE, 0x0A), 1180)}


def test_the_command(run, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "watch", run, "--once", "--json")
    assert code == 0 and not err
    told = json.loads(out)
    assert told["step"] == 60 and told["validation_loss"] == 0.5 and told["state"] == "stopped"
    code, out, _ = call(monkeypatch, capsys, "watch", run)  # ended: one look is enough
    assert code == 0 and out.count("\n") == 1 and "stopped, step 60" in out
    code, _, err = call(monkeypatch, capsys, "watch", run.parent / "none", "--once")
    assert code == 2 and "no such folder" in err
    code, _, err = call(monkeypatch, capsys, "watch", run / "config.yaml", "--once")
    assert code == 2 and "is not a run (is a file)" in err


def test_rows_without_a_number_are_told(run):
    """No loss is finite, and one line is no row."""
    rows = [row | {"loss": math.nan} for row in make_rows(3)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "metrics.jsonl").write_text(f"{lines}?\n")
    told = block(Follower(run).read())
    assert "loss        nan, mean of the last 100 nan" in told and "" not in map(str.strip, told)
    assert told[-1] == "note        lines of metrics.jsonl that are no rows: 1"


def test_a_terminal_cuts_long_lines_while_they_are_redrawn(run, monkeypatch, capsys):
    """Wrapped ones would be more rows than are gone up again."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    code, out, _ = call(monkeypatch, capsys, "watch", run)
    assert code == 0 and out.count("\x1b[?7l") == out.count("\x1b[?7h") == 1
    assert out.rstrip("\n").endswith("\x1b[?7h") and "step        60 of 100" in out


def test_a_line_of_bars(monkeypatch):
    assert sparkline([1.0] * 5) == "▁" * 5 and sparkline([]) == ""
    falling = sparkline([2.0**-k for k in range(8)])
    assert falling == "█▇▆▅▄▃▂▁" and len(sparkline(range(1, 1000))) == 48
    assert sparkline([float("nan"), 1.0, -1.0])[0] == "█"

    class Narrow:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Narrow())
    assert sparkline([1.0, 2.0]) == PLAIN[0] + PLAIN[-1]


def test_runs_below_a_folder(run, monkeypatch, capsys):
    folder = run.parent
    shutil.copytree(run, folder / "deep" / "b")
    broken = folder / "broken"
    shutil.copytree(run, broken)
    (broken / "config.yaml").write_text("train: [")
    (folder / "deep" / "pictures").mkdir()
    found, unreadable = find_runs(folder)
    assert [p.name for p in found] == ["a", "broken", "b"] and not unreadable
    code, out, _ = call(monkeypatch, capsys, "list", folder, "--json")
    told = json.loads(out)
    assert code == 0 and [row["run"][-1] for row in told["runs"]] == ["a", "b"]
    assert list(told["unreadable"]) == [str(broken)]
    code, out, _ = call(monkeypatch, capsys, "list", folder)
    assert code == 0 and out.startswith("run ")
    assert f"unreadable: {broken}: config.yaml: not valid YAML" in out
    code, out, _ = call(monkeypatch, capsys, "list", folder / "deep" / "pictures")
    assert code == 0 and "no runs" in out
    with pytest.raises(UserError, match="no such folder"):
        find_runs(folder / "none")
    with pytest.raises(UserError, match="is a file; give a folder"):
        find_runs(run / "config.yaml")


def test_the_newest_score_of_a_run(run):
    def put(path, value, sha, changed):
        score = {"metric": "mnist-frechet", "value": value, "protocol": {}, "repeats": [],
                 "subject": {"weights_sha256": sha}}  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"scores": [score]}))
        os.utime(path, (changed, changed))
        return path

    assert newest_score(run) is None
    put(run / "score.json", 3.0, "x", 100)
    put(run / "samples" / "old.json", 4.0, "x", 50)
    (run / "profile.json").write_text("{}")
    assert newest_score(run)["value"] == 3.0
    (run / "samples" / "one").mkdir()
    (run / "samples" / "one" / "manifest.json").write_text('{"weights_sha256": "mine"}')
    beside = [put(run.parent / "mine.json", 2.0, "mine", 200),
              put(run.parent / "other.json", 1.0, "other", 300)]  # fmt: skip
    assert newest_score(run, beside)["value"] == 2.0


def test_the_nearest_preset():
    from diptych.config.load import load_config

    assert nearest_preset(load_config("mnist", ["seed=4", "train.epochs=3"])) == "mnist"
    changed = ["model.dropout=0.2", "train.batch_size=7", "data.source=folder:x"]
    assert nearest_preset(load_config("cifar10", changed)) == "cifar10+2"
