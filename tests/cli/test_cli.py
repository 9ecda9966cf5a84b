"""The command line: bad input gives one line and exit code 2; the good path works as documented."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import panel_jobs
from commands import call, shell
from diptych import cli
from diptych.errors import STAGE, Interrupted

TRAIN = ["train", "tiny", "--out", "OUT", "--device", "cpu", "--quiet"]


BAD = {
    "unknown verb": (["trian"], "did you mean 'train'"),
    "unknown option": (["train", "tiny", "--ouut", "x"], "--ouut"),
    "no preset": (["train", "--out", "OUT"], "which preset"),
    "no run": (["train", "--out", "OUT", "--resume"], "holds no run to resume"),
    "unknown preset": (["train", "mnits", "--out", "OUT"], "did you mean 'mnist'"),
    "missing config": (["train", "nothing.yaml", "--out", "OUT"], "nothing.yaml"),
    "unknown key": ([*TRAIN, "--set", "train.lrr=1"], "did you mean 'lr'"),
    "key twice": (["train", "twice.yaml", "--out", "OUT"], "'lr' occurs twice"),
    "unknown section": ([*TRAIN, "--set", "trian.lr=1"], "did you mean 'train'"),
    "no value": ([*TRAIN, "--set", "train.lr"], "section.key=value"),
    "bad value": ([*TRAIN, "--set", "train.lr=fast"], "train.lr"),
    "negative rate": ([*TRAIN, "--set", "train.lr=-1"], "greater than 0"),
    "zero batch": ([*TRAIN, "--set", "train.batch_size=0"], "batch_size"),
    "odd size": ([*TRAIN, "--set", "data.image_size=7"], "halved"),
    "size": ([*TRAIN, "--set", "data.image_size=20"], "20"),
    "channels": ([*TRAIN, "--set", "data.channels=3"], "data.channels=1"),
    "zero steps": ([*TRAIN, "--steps", "0"], "train.steps"),
    "negative epochs": ([*TRAIN, "--epochs", "-1"], "train.epochs"),
    "steps and epochs": ([*TRAIN, "--steps", "1", "--epochs", "1"], "exclude"),
    "negative seed": ([*TRAIN, "--seed", "-1"], "seed"),
    "unknown backend": ([*TRAIN, "--backend", "tensorflow"], "known: jittor, torch"),
    "unknown device": ([*TRAIN, "--device", "tpu"], "device 'tpu'"),
    "unknown source": ([*TRAIN, "--set", "data.source=minst"], "did you mean"),
    "resume and overwrite": ([*TRAIN, "--resume", "--overwrite"], "exclude"),
    "sample nothing": (["sample", "nowhere", "--out", "OUT"], "not found"),
    "sample no zoo": (["sample", "zoo:nothing", "--out", "OUT"], "zoo model"),
    "compare nothing": (["compare", "a", "b", "--out", "OUT"], "a"),
}


@pytest.mark.parametrize("words, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_code_2(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twice.yaml").write_text("train: {lr: 1e-4, lr: 1e-3}")
    out = tmp_path / "out"
    code, stdout, stderr = call(
        monkeypatch, capsys, *[out if word == "OUT" else word for word in words]
    )
    assert code == 2
    assert message in stderr and stdout == ""
    assert len(stderr.strip().splitlines()) == 1
    assert not out.exists() or not any(out.iterdir())


@pytest.fixture(scope="module")
def run(panels, tmp_path_factory):
    """A short run of each panel, by name."""
    folder = tmp_path_factory.mktemp("runs")
    for name, panel in panels.items():
        panel.call(
            panel_jobs.run,
            name,
            panel_jobs.small("train.steps=4", "train.log_every=1"),
            folder / name,
        )
    return folder


def test_a_folder_with_something_in_it_is_left_alone(monkeypatch, capsys, tmp_path):
    (tmp_path / "precious").write_text("mine")
    code, _, stderr = call(monkeypatch, capsys, "train", "tiny", "--out", tmp_path)
    assert code == 2 and "--resume" in stderr and "--overwrite" in stderr
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_overwrite_spares_what_is_not_ours(monkeypatch, capsys, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, stderr = call(monkeypatch, capsys, "train", "tiny", "--out", tmp_path, "--overwrite")
    assert code == 2 and "would delete them all" in stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_file_in_place_of_the_folder(monkeypatch, capsys, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, stderr = call(monkeypatch, capsys, "train", "tiny", "--out", tmp_path / "out")
    assert code == 2 and "is a file" in stderr


def test_overwrite_is_not_carried_out_before_all_is_well(monkeypatch, capsys, run, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(run / "torch", kept)
    words = ["train", "tiny", "--out", kept, "--overwrite", "--device", "cuda:99"]
    done = shell(*words)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert (kept / "config.yaml").exists()


@pytest.mark.parametrize("backend", ["torch", "jittor"])
def test_a_device_that_is_not_there(tmp_path, backend):
    done = shell(
        "train", "tiny", "--out", tmp_path / "out", "--backend", backend, "--device", "cuda:7"
    )
    assert done.returncode == 2 and "cuda" in done.stderr
    # Where another process compiles kernels, Jittor's import waits and says so first.
    said = [line for line in done.stderr.splitlines() if "waiting for another" not in line]
    assert len(said) == 1 and not (tmp_path / "out").exists()


def test_data_that_is_damaged(monkeypatch, capsys, tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"not an archive")
    (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").write_bytes(b"not an archive")
    out = tmp_path / "out"
    code, _, stderr = call(monkeypatch, capsys, "train", "mnist", "--data", tmp_path, "--out", out)
    assert code == 2 and "train-images-idx3-ubyte.gz" in stderr and not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "jittor"])
def test_sample_from_a_run(run, tmp_path, backend):
    words = ["sample", run / backend, "--backend", backend, "--steps", "4", "--num", "5"]
    done = shell(*words, "--out", tmp_path / "out", "--json", "--npz", "--seed", "3")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["num"] == 5 and manifest["weights"] == "ema" and manifest["seed"] == 3
    assert np.load(tmp_path / "out" / "images.npz")["images"].shape == (5, 14, 14, 1)
    raw = shell(*words, "--out", tmp_path / "raw", "--raw", "--json")
    assert json.loads(raw.stdout)["weights"] == "raw"
    assert json.loads(raw.stdout)["weights_sha256"] != manifest["weights_sha256"]


@pytest.mark.slow
def test_runs_of_both_panels_are_compared(run, tmp_path):
    done = shell("compare", run / "torch", run / "jittor", "--out", tmp_path / "report", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sentences"]
    assert (tmp_path / "report" / "index.html").is_file()


def test_python_loads_what_the_command_wrote(panel, run):
    shape, kinds = panel.call(loaded, panel.name, run / panel.name)
    assert shape == (2, 14, 14, 1) and kinds == ["ema", "raw"]


def loaded(name, run):
    """`diptych.load` in a panel's process."""
    import diptych

    models = [diptych.load(run, backend=name, device="cpu", raw=raw) for raw in (False, True)]
    return models[0].sample(2, steps=2).shape, [model.facts["weights"] for model in models]


def test_doctor_answers_in_json(monkeypatch, capsys):
    code, stdout, _ = call(monkeypatch, capsys, "doctor", "--json")
    assert code in (0, 1) and json.loads(stdout)


def commands_below(command, *words):
    """The words of all commands, and of those below them."""
    for name, each in getattr(command, "commands", {}).items():
        yield (*words, name)
        yield from commands_below(each, *words, name)


@pytest.mark.parametrize("words", list(commands_below(cli.cli)), ids=" ".join)
def test_help_shows_examples(monkeypatch, capsys, words):
    """Examples of the command itself; the word `ladder` may be left out."""
    code, stdout, _ = call(monkeypatch, capsys, *words, "--help")
    examples = re.split("Examples?:\n", stdout)[-1].partition("\n\n")[0]
    assert code == 0 and f"diptych {' '.join(words).removesuffix(' ladder')}" in examples, stdout


@pytest.mark.parametrize("stage", [False, True])
def test_a_stopped_training_says_how_to_go_on(monkeypatch, capsys, tmp_path, stage):
    """With the panel's name, or the command would be refused; a study's stage leaves it out."""

    def stopped(*_, **__):
        raise Interrupted("stopped at step 3 of 9, saved", 15)

    monkeypatch.setattr("diptych.training.loop.train", stopped)
    monkeypatch.delenv(STAGE, raising=False)
    if stage:
        monkeypatch.setenv(STAGE, "1")
    words = ["train", "tiny", "--backend", "jittor", "--out", str(tmp_path / "run")]
    code, out, err = call(monkeypatch, capsys, *words)
    on = f"; go on with: diptych train --out {tmp_path / 'run'} --backend jittor --resume"
    assert (code, out) == (143, "")
    assert err == f"diptych: stopped at step 3 of 9, saved{'' if stage else on}\n"
