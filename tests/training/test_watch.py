"""Resources, events and per-step clocks of a run, and the causes of slow steps found from them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Panel
from diptych.errors import UserError
from diptych.profiling.outliers import attribute
from diptych.runs.watch import Watch, clock, cost, read_events, read_resources
from diptych.runs.watch.probe import Probe, queued
from diptych.runs.watch.resource_log import SECONDS, ResourceSampler
from diptych.training.callbacks.journal import read_rows
from panel_jobs import small
from waiting import until
from watch_jobs import disturbed

CONFIG = small("train.steps=20", "train.log_every=4", "train.checkpoint_every=1000")


def cause_of(run: Path, step: int) -> str:
    """The cause given to a step, or 'usual' where it is no outlier."""
    found = attribute(run, 1.5)
    return next((o["cause"] for o in found["outliers"] if o["step"] == step), "usual")


def overdue(run: Path, step: int, planted: float) -> bool:
    """True if the process stood still during a step: no row of resources came in its time."""
    row = next(row for row in read_rows(run / "metrics.jsonl") if row["step"] == step)
    began = row["ended"] - row["data_s"] - row["compute_s"]
    times = [row["time"] for row in read_resources(run)]
    gaps = [(a, b) for a, b in pairwise(times) if b > began and a < row["ended"]]
    return any(after - before > SECONDS + planted / 2 for before, after in gaps)


FAULTS = {9: ("data", "data"), 13: ("gc", "gc"), 17: ("sleep", "unexplained")}


def test_planted_disturbances_get_their_causes(panel: Panel, tmp_path: Path) -> None:
    """A sleep that nothing recorded explains stays unexplained; the others are named."""
    run = tmp_path / "run"
    planted = {step: fault for step, (fault, _) in FAULTS.items()}
    panel.call(disturbed, panel.name, CONFIG, run, planted, 1.5)
    for step, (_, cause) in FAULTS.items():
        also = {"paused"} if overdue(run, step, 1.5) else set()  # by somebody else: told rightly
        assert cause_of(run, step) in {cause} | also, (step, attribute(run, 1.5))
    assert (panel.name == "jittor") == any("counters" in r for r in read_resources(run))


BURN = "import time; end = time.time() + 600\nwhile time.time() < end: pass"


def burn(seconds: float) -> None:
    """Take a processor."""
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


def test_neighbours_are_told_from_own_work(tmp_path: Path) -> None:
    """Steps of known work, in the middle of which other processes take every processor."""
    run = tmp_path / "run"
    run.mkdir()
    rows: list[dict[str, Any]] = []
    others: list[Any] = []
    with Watch(run) as watch, ExitStack() as stack:
        for step in range(1, 22):
            if step == 14:
                others = [
                    subprocess.Popen([sys.executable, "-c", BURN])
                    for _ in range(4 * multiprocessing.cpu_count())
                ]
                for other in others:
                    stack.callback(other.kill)
                time.sleep(3)  # for rows of resources with them
            watch.begin()
            began = time.perf_counter()
            spent = time.thread_time()
            while time.thread_time() - spent < 0.08:
                pass
            seconds = time.perf_counter() - began
            row = {"step": step, "epoch": 0, "loss": 1.0, "data_s": 0.0, "compute_s": seconds}
            rows.append({**row, "synced": True, **watch.end(step, seconds)})
    for other in others:
        other.wait()
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = attribute(run, 1.5)
    slow = [o["cause"] for o in found["outliers"] if o["step"] > 14]
    assert slow.count("neighbours") >= 4, found
    # All else that a busy machine can do to a process that computes.
    assert set(slow) <= {"neighbours", "paused", "steal"}, found


def steady(run: Path) -> None:
    """Steps of a tenth of a second, until there is a file `enough`."""
    with Watch(run) as watch, (run / "metrics.jsonl").open("w") as file:
        for step in count(1):
            if (run / "enough").exists():
                return
            watch.begin()
            began = time.perf_counter()
            time.sleep(0.1)
            seconds = time.perf_counter() - began
            row = {"step": step, "epoch": 0, "loss": 1.0, "data_s": 0.0, "compute_s": seconds}
            file.write(json.dumps({**row, "synced": True, **watch.end(step, seconds)}) + "\n")
            file.flush()


def test_a_stopped_process_is_told_from_a_slow_one(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=steady, args=(tmp_path,))
    process.start()
    lines = tmp_path / "metrics.jsonl"

    def rows() -> int:
        return lines.read_text().count("\n") if lines.is_file() else 0

    until(lambda: rows() >= 30)
    os.kill(process.pid or 0, signal.SIGSTOP)
    stopped = rows()
    time.sleep(4)
    os.kill(process.pid or 0, signal.SIGCONT)
    until(lambda: rows() >= stopped + 20)
    (tmp_path / "enough").touch()
    process.join()
    found = attribute(tmp_path, 10)
    causes = {o["step"]: o["cause"] for o in found["outliers"]}
    assert causes.keys() & {stopped, stopped + 1, stopped + 2}, found
    assert set(causes.values()) == {"paused"}, found  # once, or also by somebody else


def write(run: Path, rows: list[dict[str, Any]], **files: list[dict[str, Any]]) -> Path:
    """A run folder of these records alone."""
    run.mkdir()
    for name, content in {"metrics": rows, **files}.items():
        text = "".join(json.dumps(row) + "\n" for row in content)
        (run / f"{name}.jsonl").write_text(text)
    return run


def steps(slow: dict[str, Any] | None = None, extra_wall: float = 0.0) -> list[dict[str, Any]]:
    """Twenty steps of a second; the 10th is changed, and ends `extra_wall` late."""
    rows, at = [], 1000.0
    for step in range(1, 21):
        row = {"step": step, "epoch": 0, "loss": 1.0, "data_s": 0.0, "compute_s": 1.0,
               "synced": True, "queue_s": 0.01, "system_s": 0.05, "page_faults": 10,
               "children_s": 0.0}  # fmt: skip
        if step == 10:
            row |= slow or {}
        at += float(row["data_s"]) + float(row["compute_s"]) + (extra_wall if step == 10 else 0.0)  # type: ignore[arg-type]
        rows.append({**row, "ended": at})
    return rows


def test_each_recorded_cause_is_found(tmp_path: Path) -> None:
    """One synthetic run a cause; the clock runs from 1000, and step 10 begins at 1009."""
    slow = {"compute_s": 5.0}
    near = [{"time": 1000.0 + s, "others_percent": 0.0, "steal_percent": 0.0} for s in range(30)]
    busy = [{**row, "others_percent": 150.0} for row in near]
    stolen = [{**row, "steal_percent": 90.0 if 1009 < row["time"] < 1015 else 0.0} for row in near]
    compiled = [{"time": 1009.0, "seconds": 4.0, "kind": "compile", "step": 9, "detail": {}}]
    still = [{**row, "cpu_percent": 2.0} for row in near if not 1009.5 < row["time"] < 1013.5]
    held = [{**row, "cpu_percent": 99.0} for row in still]
    saved = [{"time": 1009.1, "seconds": 3.5, "kind": "checkpoint", "step": 9, "detail": {}}]
    cases: list[tuple[str, list[Any], dict[str, list[Any]]]] = [
        ("unexplained", steps(slow), {"resources": busy}),
        ("neighbours", steps({**slow, "queue_s": 3.9}), {"resources": busy}),
        ("scheduling", steps({**slow, "queue_s": 3.9}), {"resources": near}),
        ("paused", steps(slow), {"resources": still}),
        ("unexplained", steps(slow), {"resources": held}),  # its own thread kept it waiting
        ("steal", steps(slow), {"resources": stolen}),
        ("compile", steps(slow), {"events": compiled}),
        ("neighbours", steps({**slow, "queue_s": 3.9}), {"events": compiled, "resources": busy}),
        ("compile", steps({**slow, "queue_s": 3.9, "children_s": 9.0}), {"events": compiled}),
        ("checkpoint", steps({}, extra_wall=4.0), {"events": saved}),
        ("unexplained", steps({}, extra_wall=4.0), {}),
        ("memory", steps({**slow, "system_s": 3.0, "page_faults": 9000}), {}),
        ("data", steps({"data_s": 4.0}), {}),
    ]
    for number, (cause, rows, files) in enumerate(cases):
        run = write(tmp_path / str(number), rows, **files)
        assert cause_of(run, 10) == cause, (number, cause, attribute(run, 1.5))


def test_old_runs_are_attributed_as_far_as_they_can_be(tmp_path: Path) -> None:
    """Without the new records: data and the first step; the rest is unexplained, and said so."""
    keys = ("step", "epoch", "loss", "data_s", "compute_s", "synced")
    rows = [{key: row[key] for key in keys} for row in steps({"compute_s": 5.0})]
    rows[0]["compute_s"], rows[4]["data_s"] = 9.0, 6.0
    found = attribute(write(tmp_path / "old", rows))
    causes = {o["step"]: o["cause"] for o in found["outliers"]}
    assert causes == {1: "first step", 5: "data", 10: "unexplained"}
    assert (found["evidence"], found["unexplained"]) == ([], 1)
    with pytest.raises(UserError, match="not a run folder"):
        attribute(tmp_path)
    with pytest.raises(UserError, match="more than one median"):
        attribute(tmp_path / "old", 1.0)


def test_sampling_states_its_own_cost(tmp_path: Path) -> None:
    """Processor time of thread and probes over the time covered (docs/profiling.md has figures)."""
    run = tmp_path / "run"
    run.mkdir()
    steps_done = count(1)
    with Watch(run) as watch:

        def sampled() -> bool:
            """After one more step: rows that are not far apart are there."""
            watch.begin()
            time.sleep(0.02)
            watch.end(next(steps_done), 0.02)
            return (cost(run) or {"seconds": 0.0})["seconds"] > 0

        until(sampled)
    spent = cost(run)
    assert spent is not None and spent["samples"] >= 2
    assert min(spent["own_s"], spent["probe_s"]) > 0
    assert spent["share"] == pytest.approx((spent["own_s"] + spent["probe_s"]) / spent["seconds"])


def test_torn_lines_are_dropped_and_broken_ones_refused(tmp_path: Path) -> None:
    """A killed run leaves part of a line, after which a resumed one goes on, on the same or not."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"time": 2.0, "kind": "gc"}\n{"time": 3\n{"time": 1.0, "kind": "grid"}\n{"ti')
    assert [row["time"] for row in read_events(tmp_path)] == [1.0, 2.0]
    path.write_text('{"time": 3, "detail": {"a": 1}{"time": 4.0}\n{"time": 5}\n')
    assert [row["time"] for row in read_events(tmp_path)] == [5]
    for broken in ("nonsense", "7", '{"kind": 1}'):
        path.write_text(broken + '\n{"time": 1.0}\n')
        with pytest.raises(UserError, match="line 1"):
            read_events(tmp_path)
    assert read_resources(tmp_path) == [] and cost(tmp_path) is None


def test_a_clock_that_is_set_moves_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a machine's sleep look like busy seconds: the time that passed is counted."""
    probe = Probe()
    before = probe.end()["ended"]
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= probe.end()["ended"] - before < 60
    sampler = ResourceSampler(tmp_path / "resources.jsonl")
    later = clock.now() + 3600
    monkeypatch.setattr(clock, "now", lambda: later)
    burn(0.1)
    row = sampler.sample()
    assert row["time"] == later and row["cpu_percent"] < 1 and row["others_percent"] < 10


@pytest.mark.parametrize(("after", "rows"), [(0.2, 1), (0.3, 2)])
def test_the_last_row_is_no_share_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: float, rows: int
) -> None:
    """Shares of a millisecond are those of clocks that tick every ten."""
    path, now = tmp_path / "resources.jsonl", [1000.0]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    sampler = ResourceSampler(path, interval=0.5)

    def wait(seconds: float) -> bool:
        """One row is due; then the end comes, `after` so many seconds."""
        ended = now[0] > 1000
        now[0] += after if ended else seconds
        return ended

    monkeypatch.setattr(sampler, "_stop", SimpleNamespace(wait=wait))
    sampler._work()
    assert not sampler.failed and len(path.read_text().splitlines()) == rows


def test_a_gpu_that_is_lost_stops_the_record_and_not_the_run(tmp_path: Path, capsys: Any) -> None:
    def lost() -> dict[str, float]:
        raise RuntimeError("GPU is lost")

    with ResourceSampler(tmp_path / "resources.jsonl", lost, interval=0.01) as sampler:
        until(lambda: sampler.failed)
    assert sampler.failed == "GPU is lost"
    assert "resources.jsonl: the record ends early (GPU is lost)" in capsys.readouterr().err


def test_a_full_disk_stops_the_record_and_not_the_run(tmp_path: Path) -> None:
    """The sampler notes why it ended; nothing is raised."""
    with ResourceSampler(tmp_path / "no" / "such" / "file.jsonl", interval=0.01) as sampler:
        until(lambda: sampler.failed)
    assert "No such file" in sampler.failed
    with Watch(tmp_path / "nowhere") as watch:
        watch.note("gc", 0.0, 1.0)


def test_waiting_of_idle_threads_is_not_the_step_s(tmp_path: Path) -> None:
    """The most delayed thread counts only if it computes."""
    before = {"main": (0, 0), "idle": (0, 0)}
    after = {"main": (10**9, 2 * 10**8), "idle": (10**6, 9 * 10**9), "new": (10**9, 3 * 10**8)}
    assert queued(before, after) == pytest.approx(0.3)
    assert queued({}, {}) == 0.0
    probe = Probe()
    probe.scheduled = False
    probe.begin()
    assert "queue_s" not in probe.end()
