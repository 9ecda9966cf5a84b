"""A run survives interruptions and ends with the weights of an undisturbed run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import panel_jobs
from diptych.config.load import Config, load_config
from diptych.errors import UserError
from diptych.files import hold
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.training import rate
from diptych.training.callbacks.journal import read_rows
from waiting import PATIENCE

STEPS = [
    *panel_jobs.NARROW, "train.steps=16", "train.checkpoint_every=4", "train.log_every=2",
    "model.dropout=0.1",
]  # fmt: skip


def state_of(run: Path, config: Config) -> dict[str, str]:
    """Hashes of the newest checkpoint's four groups."""
    state = checkpoint.load_state(checkpoint.latest(run), make_plan(config))
    return {g: checkpoint.weights_sha256(getattr(state, g)) for g in checkpoint.GROUPS}


def command(run: Path, backend: str, *more: str) -> list[str]:
    changes = [arg for change in (*panel_jobs.SMALL, *STEPS) for arg in ("--set", change)]
    words = ["train", "tiny", "--backend", backend, "--out", str(run), "--device", "cpu", *changes]
    return [sys.executable, "-m", "diptych", *words, *more]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the path is there; the process must not end before."""
    while not path.exists():
        assert process.poll() is None, "the run ended before its checkpoint"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(panel, tmp_path):
    """2N steps, and N steps + kill -9 + resume: equal bit for bit, weights, EMA and moments."""
    config = panel_jobs.small(*STEPS)
    panel.call(panel_jobs.run, panel.name, config, tmp_path / "straight")
    # Far more steps than will be made, so that the kill meets a run at work; every checkpoint is
    # kept, for the run may get far before the kill.
    endless = ["--steps", "100000", "--set", "train.keep_checkpoints=100000"]
    process = subprocess.Popen(command(tmp_path / "broken", panel.name, "--quiet", *endless))
    wait_for(tmp_path / "broken" / "checkpoints" / "step-00000008", process)
    process.kill()
    process.wait()
    for late in checkpoint.all_checkpoints(tmp_path / "broken"):
        if int(late.name.removeprefix("step-")) > 12:  # it has run ahead: go back
            shutil.rmtree(late)
    panel.call(panel_jobs.run, panel.name, config, tmp_path / "broken", resume=True)
    assert state_of(tmp_path / "broken", config) == state_of(tmp_path / "straight", config)
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("straight", "broken")]
    assert [r["step"] for r in rows[1]] == list(range(1, 17))
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(panel, tmp_path, number):
    run = tmp_path / "run"
    process = subprocess.Popen(
        command(run, panel.name, "--quiet", "--steps", "100000"), stderr=subprocess.PIPE
    )
    wait_for(run / "checkpoints" / "step-00000004", process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert b"--resume" in stderr and b"Traceback" not in stderr
    assert stderr.count(b"Ctrl-C (again) stops at once") == 1
    last = int(checkpoint.latest(run).name.removeprefix("step-"))
    assert read_rows(run / "metrics.jsonl")[-1]["step"] == last


@pytest.fixture(scope="module")
def finished(panels, tmp_path_factory):
    """A short run of the PyTorch panel, made once."""
    run = tmp_path_factory.mktemp("finished") / "run"
    panels["torch"].call(panel_jobs.run, "torch", panel_jobs.small(*STEPS), run)
    return run


def test_a_run_folder_holds_its_records(finished):
    rows = read_rows(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 17))
    keys = {
        "step",
        "epoch",
        "loss",
        "lr",
        "grad_norm",
        "data_s",
        "compute_s",
        "synced",
        "memory_mb",
    }
    watched = {"ended", "cpu_s", "system_s", "children_s", "page_faults", "queue_s"}
    assert keys <= set(rows[0]) <= keys | watched
    environment = json.loads((finished / "environment.json").read_text())
    assert environment["backend"] == "torch" and environment["dataset_images"] == 10_000
    assert len(checkpoint.all_checkpoints(finished)) == 2  # the last two are kept
    assert (finished / "grids" / "step-00000016.png").is_file()
    assert list((finished / "tensorboard").iterdir())


def test_tensorboard_reads_the_events(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"))
    events.Reload()
    scalars = {event.step: event.value for event in events.Scalars("train/loss")}
    rows = read_rows(finished / "metrics.jsonl")
    assert scalars == pytest.approx({row["step"]: row["loss"] for row in rows}, rel=1e-6)
    assert events.Images("samples")


def test_a_longer_resume_goes_on(panels, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    longer = panel_jobs.small(*STEPS, "train.steps=20")
    panels["torch"].call(panel_jobs.run, "torch", longer, run, resume=True)
    assert checkpoint.latest(run).name == "step-00000020"


def test_two_processes_do_not_train_one_run(panels, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    longer = panel_jobs.small(*STEPS, "train.steps=20")
    with hold(run), pytest.raises(UserError, match="another process is at work in it"):
        panels["torch"].call(panel_jobs.run, "torch", longer, run, resume=True)
    assert read_rows(run / "metrics.jsonl") == read_rows(finished / "metrics.jsonl")


# Of a run of 10 steps at 0.8, 2 of them warm-up: steps 1 to 11.
RATES = {
    "none": [0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8],
    "linear": [0.4, 0.8, 0.71, 0.62, 0.53, 0.44, 0.35, 0.26, 0.17, 0.08, 0.08],
    "cosine": [0.4, 0.8, 0.7725966, 0.6945584, 0.5777660, 0.44, 0.3022340, 0.1854416, 0.1074034,
               0.08, 0.08],
}  # fmt: skip


@pytest.mark.parametrize("decay", RATES)
def test_the_learning_rate_at_each_step(decay: str) -> None:
    final = [] if decay == "none" else ["train.lr_final=0.1"]
    settings = load_config(
        "tiny", ["train.lr=0.8", "train.warmup_steps=2", f"train.lr_decay={decay}", *final]
    ).train
    rates = [rate.learning_rate(settings, 10, step) for step in range(1, 12)]
    assert rates == pytest.approx(RATES[decay], abs=1e-7)
    cold = settings.model_copy(update={"warmup_steps": 0})
    halfway = rate.learning_rate(cold, 10, 5)
    assert halfway == pytest.approx(0.8 if decay == "none" else 0.44, abs=1e-12)


def test_the_averages_rate_at_each_step() -> None:
    settings = load_config("tiny", ["train.ema_rate=0.9", "train.ema_warmup=true"]).train
    found = [settings.ema_rate_at(step) for step in (1, 2, 10, 79, 80, 81, 10_000)]
    assert found == pytest.approx([2 / 11, 3 / 12, 11 / 20, 80 / 89, 0.9, 0.9, 0.9], abs=1e-15)
    plain = settings.model_copy(update={"ema_warmup": False})
    assert [plain.ema_rate_at(step) for step in (1, 10_000)] == [0.9, 0.9]


DECAYED = ["train.lr_decay=cosine", "train.lr_final=0.1", "train.ema_warmup=true",
           "train.warmup_steps=3", "train.keep_checkpoints=9"]  # fmt: skip


def test_a_decayed_run_resumes_exactly_and_at_its_own_length_alone(panel, tmp_path):
    config = panel_jobs.small(*STEPS, *DECAYED)
    panel.call(panel_jobs.run, panel.name, config, tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "broken")
    for step in (12, 16):
        shutil.rmtree(tmp_path / "broken" / "checkpoints" / f"step-{step:08d}")
    panel.call(panel_jobs.run, panel.name, config, tmp_path / "broken", resume=True)
    assert state_of(tmp_path / "broken", config) == state_of(tmp_path / "straight", config)
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("straight", "broken")]
    assert [r["lr"] for r in rows[0]] == [r["lr"] for r in rows[1]]
    assert rows[0][-1]["lr"] == pytest.approx(0.1 * config.train.lr, rel=1e-12)
    longer = panel_jobs.small(*STEPS, *DECAYED, "train.steps=20")
    with pytest.raises(UserError, match=r"train\.steps=16, not 20.* depends on the run's length"):
        panel.call(panel_jobs.run, panel.name, longer, tmp_path / "broken", resume=True)


@pytest.mark.parametrize(("warmup", "said"), [(16, True), (40, True), (15, False)])
def test_a_warm_up_that_leaves_no_decay_is_said(caplog, warmup: int, said: bool) -> None:
    change = ["train.lr=0.4", "train.lr_decay=linear", f"train.warmup_steps={warmup}"]
    rate.warn_of_warmup(load_config("tiny", change).train, 16)
    words = [f"train.warmup_steps={warmup}, but the run has 16 steps", f"{0.4 * 16 / warmup:.2g}"]
    assert [all(word in caplog.text for word in words), bool(caplog.records)] == [said, said]


@pytest.mark.parametrize("change", ["train.lr=0.5", "model.dropout=0.3", "seed=9"])
def test_another_config_is_not_resumed(panels, finished, change):
    with pytest.raises(UserError, match=change.partition("=")[0]):
        panels["torch"].call(
            panel_jobs.run, "torch", panel_jobs.small(*STEPS, change), finished, resume=True
        )


def test_the_other_panel_does_not_resume_it(panels, finished):
    with pytest.raises(UserError, match="--backend torch"):
        panels["jittor"].call(
            panel_jobs.run, "jittor", panel_jobs.small(*STEPS), finished, resume=True
        )


def test_a_damaged_checkpoint_is_refused(panels, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    weights = checkpoint.latest(run) / "ema.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7] + b"damaged")
    shutil.rmtree(run / "checkpoints" / "step-00000012")
    longer = panel_jobs.small(*STEPS, "train.steps=20")
    with pytest.raises(UserError, match=r"ema\.safetensors: is damaged"):
        panels["torch"].call(panel_jobs.run, "torch", longer, run, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(panel, tmp_path):
    config = panel_jobs.small("train.steps=40", "train.checkpoint_every=2", "train.warmup_steps=0",
                        "train.log_every=1", "train.lr=1e25")  # fmt: skip
    with pytest.raises(UserError, match=r"step \d+: (loss|grad_norm) is (nan|inf)"):
        panel.call(panel_jobs.run, panel.name, config, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert all(np.isfinite(row["loss"]) for row in rows)
    for kept in checkpoint.all_checkpoints(tmp_path / "run"):
        state = checkpoint.load_state(kept, make_plan(config))
        assert state.step <= len(rows)


def test_device_noise_trains_and_is_recorded(panel, tmp_path):
    """`noise: device` draws by step too: a repeated run is the same run."""
    changes = ["train.noise=device", "train.steps=6", "model.dropout=0.1"]
    config = panel_jobs.small(*panel_jobs.NARROW, *changes)
    for name in ("a", "b"):
        panel.call(panel_jobs.run, panel.name, config, tmp_path / name)
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("a", "b")]
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]]
    assert "noise: device" in (tmp_path / "a" / "config.yaml").read_text()


@pytest.mark.parametrize("preset", ["mnist", "fashion_mnist", "tiny"])
def test_every_preset_trains(panel, tmp_path, preset):
    # The packaged images stand in for those that cannot travel with the package.
    config = load_config(preset, ["data.source=mnist-10k", "train.steps=2", "train.batch_size=4"])
    panel.call(panel_jobs.run_without_grid, panel.name, config, tmp_path / "run")
    assert len(read_rows(tmp_path / "run" / "metrics.jsonl")) == 2


def test_a_full_disk_leaves_the_last_checkpoint(finished, tmp_path):
    """The child may write files of at most 1 MB: its first checkpoint does not fit."""
    wide = ["--set", "model.ch=32", "--set", "model.norm_groups=32"]
    words = command(tmp_path / "run", "torch", "--quiet", *wide)
    limited = f"ulimit -f 1000; exec {' '.join(words)}"
    script = limited.replace("[", "'[").replace("]", "]'")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_callback_may_stop_when_a_step_is_done(panel, tmp_path):
    run = tmp_path / "run"
    config = panel_jobs.small("train.steps=5", "train.checkpoint_every=5")
    assert panel.call(panel_jobs.run_stopped, panel.name, config, run, 2) == 2
    assert checkpoint.latest(run).name == "step-00000002"
    assert [row["step"] for row in read_rows(run / "metrics.jsonl")] == [1, 2]
