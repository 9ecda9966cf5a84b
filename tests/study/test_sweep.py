"""Sweeps: one cell at a time, resumable, mismatched cells refused; runs instead of samples."""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import shutil

import numpy as np
import pytest

import panel_jobs
from commands import call
from diptych.errors import UserError
from diptych.evaluation.sets import Settings
from diptych.generate.for_scoring import Drawing, draw, is_model
from diptych.sampling.options import SamplerOptions
from diptych.study.sweep import cells as sweeps
from diptych.study.sweep import output as sweep_output
from diptych.study.sweep.variants import parse
from fake_features import Fake, open_fake


@pytest.fixture(scope="module")
def trained(panels, tmp_path_factory):
    """A short 28-pixel run of the PyTorch panel."""
    run = tmp_path_factory.mktemp("run") / "torch"
    config = panel_jobs.small("train.steps=1", "data.image_size=28", "model.attn_resolutions=[14]")
    panels["torch"].call(panel_jobs.run, "torch", config, run)
    return run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def reference(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=pixels)
    return str(tmp_path / "real.npz")


def asked(run, reference, **changes):
    settings = Settings(("fid", "prdc"), "mnist", num=8, repeats=3, progress=False)
    made = {"steps": (2, 3), "etas": (0.0, 1.0), "drawing": Drawing(batch=8),
            "settings": settings, "reference": reference} | changes  # fmt: skip
    return sweeps.Sweep(str(run), **made)


def swept(sweep, out, stop_after=None):
    """Run the torch panel's cells in this process's stead: in the panel's own."""
    count = iter(range(1000))

    def note(text):
        if stop_after is not None and next(count) == stop_after:
            raise KeyboardInterrupt("planted")

    with contextlib.suppress(KeyboardInterrupt):
        sweeps.run_panel(sweep, out, "torch", "cpu", lambda: Fake("mnist"), note=note)
    return sorted(path.name for path in (out / "cells").glob("*.json"))


def test_an_interrupted_sweep_goes_on_and_gives_the_same_table(panels, run, reference, tmp_path):
    call_panel = panels["torch"].call
    sweep = asked(run, reference)
    first = call_panel(swept, sweep, tmp_path / "broken", 2)
    assert len(first) == 2
    stamps = {name: (tmp_path / "broken/cells" / name).stat().st_mtime_ns for name in first}
    assert len(call_panel(swept, sweep, tmp_path / "broken")) == 4
    for name, stamp in stamps.items():
        assert (tmp_path / "broken/cells" / name).stat().st_mtime_ns == stamp
    call_panel(swept, sweep, tmp_path / "whole")
    tables = []
    for folder in ("broken", "whole"):
        cells = sweeps.read_cells(tmp_path / folder)
        tables.append([[c["steps"], c["eta"], [s["value"] for s in c["scores"]]] for c in cells])
        assert [(c["eta"], c["steps"]) for c in cells] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    assert tables[0] == tables[1]


def test_cells_of_another_request_are_refused_by_field(panels, run, reference, tmp_path):
    out = tmp_path / "out"
    small = asked(run, reference, steps=(2,), etas=(0.0,))
    panels["torch"].call(swept, small, out)
    other = asked(run, reference, steps=(2,), etas=(0.0,), drawing=Drawing(batch=8, seed=9))
    with pytest.raises(UserError, match="seed=0, not 9"):
        panels["torch"].call(swept, other, out)


def test_cells_without_scores_get_them_later(panels, run, reference, tmp_path):
    """Times alone need no feature network; the scores come from the images that are there."""
    call_panel = panels["torch"].call
    names = call_panel(swept, asked(run, None, scored=False), tmp_path / "s")
    cells = sweeps.read_cells(tmp_path / "s")
    content = sweep_output.write_all(cells, tmp_path / "s")
    assert len(names) == 4 and all(row["seconds_per_image"] > 0 for row in content["cells"])
    assert content["request"]["metrics"] == [] and content["request"]["features"] is None
    assert sweep_output.render(cells).splitlines()[0].split()[-1] == "s/image"
    drawn = {path: path.stat().st_mtime_ns for path in run.rglob("samples/**/*.png")}
    assert drawn
    call_panel(swept, asked(run, reference, steps=(2,)), tmp_path / "s")
    assert [cell["steps"] for cell in sweeps.read_cells(tmp_path / "s")] == [2, 2]
    call_panel(swept, asked(run, reference), tmp_path / "s")
    assert all(len(cell["scores"]) > 1 for cell in sweeps.read_cells(tmp_path / "s"))
    assert drawn == {path: path.stat().st_mtime_ns for path in run.rglob("samples/**/*.png")}
    with pytest.raises(UserError, match="metrics="):
        call_panel(swept, asked(run, None, scored=False), tmp_path / "s")


def test_solvers_are_compared_at_equal_network_calls(panels, run, reference, tmp_path):
    variants = tuple(parse(text) for text in ("ddim:clip", "heun", "dpmpp:order=3"))
    sweep = asked(run, reference, variants=variants, calls=(3, 4), steps=(), etas=(0.0,))
    panels["torch"].call(swept, sweep, tmp_path)
    cells = sweeps.read_cells(tmp_path)
    found = {(c["solver"], c["network_calls"]): c["steps"] for c in cells}
    assert found == {
        ("ddim:clip", 3): 3, ("ddim:clip", 4): 4, ("dpmpp:order=3", 3): 3, ("dpmpp:order=3", 4): 4,
        ("heun", 3): 2,
    }  # fmt: skip
    sampler = {
        c["solver"]: {k.removeprefix("sampler."): v for k, v in c["scores"][0]["protocol"].items()}
        for c in cells
    }
    assert sampler["ddim:clip"]["clip"] and not sampler["heun"]["clip"]
    assert sampler["dpmpp:order=3"]["order"] == 3
    assert sweep_output.figure(cells, "mnist-frechet").startswith(b"\x89PNG")


def test_tables_and_figures_say_the_same(panels, run, reference, tmp_path):
    out = tmp_path / "out"
    panels["torch"].call(swept, asked(run, reference), out)
    content = sweep_output.write_all(sweeps.read_cells(out), out)
    assert json.loads((out / "sweep.json").read_text()) == content
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [row["mnist-frechet"] for row in content["cells"]]
    assert [float(row["mnist-frechet"]) for row in rows] == values
    text = (out / "sweep.md").read_text()
    assert len(text.splitlines()) == 2 + 4 and f"{values[0]:.4g}" in text
    assert f"{values[3]:.4g}" in sweep_output.render(sweeps.read_cells(out))
    for name in ("mnist-frechet", "mnist-recall"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert all(row["seconds_per_image"] > 0 for row in content["cells"])
    assert content["cells"][0]["mnist-frechet_low"] < values[0]


def test_a_run_is_sampled_once_and_found_again(panels, run):
    assert is_model(str(run)) and not is_model(str(run / "samples")) and is_model("zoo:x")
    drawing = Drawing(SamplerOptions(steps=2), batch=4)
    arguments = (str(run), drawing, 5, 2, "torch", "cpu")
    folders = panels["torch"].call(draw, *arguments, progress=False)
    assert len({folder.name for folder in folders}) == 2
    before = (folders[0] / "00000.png").stat().st_mtime_ns
    assert panels["torch"].call(draw, *arguments, progress=False) == folders
    assert (folders[0] / "00000.png").stat().st_mtime_ns == before
    (folders[1] / "00003.png").unlink()
    manifest = json.loads((folders[1] / "manifest.json").read_text())
    (folders[1] / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    panels["torch"].call(draw, *arguments, progress=False)
    assert (folders[1] / "00003.png").is_file()
    assert (
        panels["torch"].call(draw, str(run), drawing, 6, 1, "torch", "cpu", progress=False)
        != (folders[:1])
    )


@pytest.mark.parametrize("code", [2, 130])
def test_a_panels_refusal_is_said_once(monkeypatch, capsys, code):
    """The panel's own process has said it; the sweep leaves with its exit code and no more."""
    module = importlib.import_module("diptych.cli.sweep")
    monkeypatch.setattr(module, "run_child", lambda *_, **__: code)
    with pytest.raises(SystemExit) as left:
        module.run_in_process_of_its_own("jittor", 0)
    assert left.value.code == code and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--steps", "ten"], "--steps ten"),
        (["--steps", "10,10"], "different values"),
        (["--calls", "10,10"], "different values"),
        (["--calls", "10", "--steps", "10"], "give one of them"),
        (["--solver", "dimm"], "'dimm' is not known"),
        (["--solver", "ddim:steps=3"], "'steps=3' is not known"),
        (["--solver", "dpmpp:order=two"], "'two' is not a value for order"),
        (["--backend", "tensorflow"], "use torch, jittor, onnx, openvino or both"),
        (["--metrics", "fud"], "metric 'fud'"),
        (["--num", "0"], "1 or more"),
        (["--steps", ""], "--steps : give whole numbers"),
        (["--eta", ""], "--eta : give numbers"),
        (["--calls", ""], "--calls : give whole numbers"),
        (["--repeats", "1" + 20 * "0"], "10,000 or less"),
        (["--batch", "1" + 20 * "0"], "10,000,000 or less"),
        (["--metrics", "none"], "leave --reference out"),
    ],
)
def test_bad_sweeps_are_one_line(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("diptych.cli.evaluate")
    monkeypatch.setattr(module, "open_network", open_fake)
    base = ["sweep", "nowhere", "--num", "4", "--features", "mnist", "--reference", "mnist:test"]
    code, out, err = call(monkeypatch, capsys, *base, *words, "--out", "out", "--quiet")
    assert code == 2 and message in err and out == ""
    assert len(err.strip().splitlines()) == 1


def test_a_sweep_that_cannot_be_begins_no_folder(monkeypatch, capsys, tmp_path):
    """Nothing is drawn for a reference that is not there, and no folder is left behind."""
    monkeypatch.chdir(tmp_path)
    base = ["sweep", "zoo:mnist-torch", "--num", "4", "--out", "out", "--quiet"]
    scored = ["--features", "mnist", "--steps", "2", "--reference"]
    for words, message in (
        ([*scored, "nowhere"], "nowhere: not found"),
        (["--metrics", "none", "--calls", "0"], "exactly 0 network calls: no cell is left"),
        (["--metrics", "none", "--solver", "heun", "--calls", "2,4"], "give other --calls"),
        (["--metrics", "none", "--steps", "0"], "0 steps cannot be taken"),
        (["--metrics", "none", "--sample-batch", "0"], "--sample-batch is 0; it must be 1 or more"),
    ):
        code, out, err = call(monkeypatch, capsys, *base, *words)
        assert code == 2 and message in err and err.count("\n") == 1 and out == "", err
        assert not (tmp_path / "out").exists(), words
    words = ["evaluate", "zoo:mnist-torch", "--num", "4", *scored, "nowhere"]
    code, _, err = call(monkeypatch, capsys, *words, "--samples-out", "out")
    assert code == 2 and "nowhere: not found" in err and not (tmp_path / "out").exists()


def test_a_sweep_of_memorisation_in_pixels_has_no_network():
    """It was a KeyError."""
    module = importlib.import_module("diptych.cli.sweep")
    made = module.sweep.make_context("sweep", [
        "zoo:mnist-torch", "--num", "4", "--metrics", "memorization", "--features", "pixels",
        "--train", "npz:a.npz", "--held-out", "npz:b.npz", "--out", "out",
    ])  # fmt: skip
    request = module.sweep_request(made.params.pop("source"), made.params)
    assert request.scored and request.features_sha256 is None
