"""Parts of a sweep give the folder of one process, whoever computes them and whenever."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import call
from diptych.errors import UserError
from diptych.evaluation.sets import Settings
from diptych.files import LOCK, Held, hold, hold_part, read_json, write_json
from diptych.generate.for_scoring import Drawing
from diptych.ranks import Part
from diptych.study.sweep import cells as sweeps
from diptych.study.sweep import output, parts
from diptych.study.sweep.variants import parse
from fake_features import Fake
from sweep_files import content, timeless
from waiting import PATIENCE

MODEL = "zoo:mnist-torch"


def asked(**changes: Any) -> sweeps.Sweep:
    """Six cells: four of DDIM, two of Heun's method."""
    made: dict[str, Any] = {
        "steps": (2, 3), "etas": (0.0, 1.0), "drawing": Drawing(batch=4), "reference": None,
        "settings": Settings(("is",), "mnist", num=4, progress=False), "scored": False,
        "variants": (parse("ddim"), parse("heun")),
    }  # fmt: skip
    return sweeps.Sweep(MODEL, **(made | changes))


def drawn(source: str, drawing: Drawing, num: int, repeats: int, backend: str, device: str,
          folder: Path | None = None, progress: bool = True) -> list[Path]:  # fmt: skip
    """Stand-in for `draw`: a folder that takes a moment, with a manifest without real times."""
    assert folder is not None
    out = folder / str(drawing.options.given()).replace("/", "_")
    with hold(out):
        time.sleep(0.01)
        card = {"images_timed": num, "seconds": 1.0, "network_calls": drawing.options.steps}
        write_json(out / "manifest.json", card | {"device": device, "solver": "ddim"})
    return [out]


def sweep(out: Path, text: str | None = None, request: sweeps.Sweep | None = None,
          resume: bool = False) -> bool:  # fmt: skip
    """A part of the sweep, or all of it; True if the folder is complete after it."""
    request, part = request or asked(), Part.parse(text) if text else None

    def compute(_: int) -> None:
        sweeps.run_panel(
            request, out, "torch", "cpu", lambda: Fake("mnist"), part=part,
            samples_out=out.parent / "samples", draw_sets=drawn,
        )  # fmt: skip

    if part is not None:
        return parts.sweep_part(
            sweeps.cells_of(request), out, ("torch",), part, compute, resume=resume
        )
    with hold(out):
        parts.check_begun(request, out, ("torch",))
        compute(0)
        output.write_all(sweeps.read_cells(out), out)
        parts.forget_parts(out)
    return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert sweep(out)
    found = content(out)
    assert len([name for name in found if name.startswith("cells/")]) == 6
    return found


@pytest.mark.parametrize("order", [["0/4", "1/4", "2/4", "3/4"], ["2/3", "0/3", "2/3", "1/3"]])
def test_parts_give_the_folder_of_one_process(whole, tmp_path, order):
    """Six cells in four parts and in three, in any order, and with a part done twice."""
    out = tmp_path / "out"
    assert [sweep(out, text) for text in order] == [False] * (len(order) - 1) + [True]
    assert content(out) == whole
    assert sweep(out, order[0])  # once more: nothing is to be done
    assert content(out) == whole


def test_more_parts_than_cells(whole, tmp_path):
    out = tmp_path / "out"
    assert [sweep(out, f"{k}/9") for k in range(9)] == [False] * 8 + [True]
    assert content(out) == whole


def test_each_part_computes_its_own_cells_only(tmp_path):
    out = tmp_path / "out"
    sweep(out, "1/4")
    files = [sweeps.cell_path(out, "torch", *pair).name for pair in sweeps.cells_of(asked()).pairs]
    assert sorted(path.name for path in (out / "cells").iterdir()) == sorted([files[1], files[5]])
    assert read_json(out / "part-1-of-4.json")["cells"] == [files[1], files[5]]


def test_parts_at_once_complete_the_folder_once(whole, tmp_path):
    """Four processes at the same time, three times over: none fails, and one completes it."""
    started = multiprocessing.get_context("fork")
    for attempt in range(3):
        out = tmp_path / str(attempt) / "out"
        work = [started.Process(target=sweep, args=(out, f"{k}/4")) for k in range(4)]
        for process in work:
            process.start()
        for process in work:
            process.join(PATIENCE)
        assert [process.exitcode for process in work] == [0] * 4
        assert content(out) == whole


def test_cells_of_the_same_images_wait_for_each_other(tmp_path):
    """A solver by its default and by name is drawn into one folder; a plain sweep refuses."""
    calls: list[str] = []

    def busy(*given: Any, **how: Any) -> list[Path]:
        calls.append("drawn")
        if len(calls) < 3:
            raise Held("samples: another process is at work in it")
        return drawn(*given, **how)

    request, said = asked(steps=(2,), etas=(0.0,), variants=(parse("ddim"),)), list[str]()
    [pair] = sweeps.cells_of(request).pairs
    how: dict[str, Any] = {"samples_out": tmp_path / "samples", "draw_sets": busy}
    arguments = (request, tmp_path / "out", "torch", "cpu", pair, {"metrics": []}, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "POLL", 0.0)
        sweeps.compute_cell(*arguments, shared=True, note=said.append, **how)
    assert len(calls) == 3 and len(said) == 1 and "waiting" in said[0]
    calls.clear()
    with pytest.raises(Held):
        sweeps.compute_cell(*arguments, **how)


def test_a_killed_part_is_finished_by_the_next(whole, tmp_path):
    """Leftovers of a killed process: the plan, a cell, its lock file, a temporary file."""
    out = tmp_path / "out"
    sweep(out, "0/2")
    name = sweeps.cell_path(out, "torch", *sweeps.cells_of(asked()).pairs[1]).name
    (out / "cells" / name).write_bytes(whole[f"cells/{name}"])
    (out / f".part-1-of-2{LOCK}").touch()
    assert sweep(out, "1/2")
    assert content(out) == whole


def test_one_process_finishes_what_was_begun_in_parts(whole, tmp_path):
    out = tmp_path / "out"
    sweep(out, "1/2")
    assert sweep(out, resume=True)
    assert content(out) == whole


def test_killed_while_completing(whole, tmp_path):
    """The records or the plan may be left: the next start of any part removes them."""
    for left in ("part-1-of-2.json", "parts.json"):
        out = tmp_path / left / "out"
        sweep(out, "0/2")
        begun = content(out)
        sweep(out, "1/2")
        if left == "parts.json":
            (out / "sweep.json").unlink()
            (out / "part-1-of-2.json").write_text("{}")
            for name in ("parts.json", "part-0-of-2.json"):
                (out / name).write_bytes(begun[name])
        else:
            (out / left).write_text("{}")
        assert sweep(out, "0/2")
        assert content(out) == whole


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    out = tmp_path / "out"
    sweep(out, "0/2")
    before = content(out)
    for text, request, words in (
        ("0/3", asked(), "begun in 2 parts, not 3"),
        ("1/2", asked(drawing=Drawing(batch=4, seed=9)), "begun with seed=0, not 9"),
        ("1/2", asked(steps=(2, 4)), r"torch-ddim-4-eta0\.json is not of that sweep"),
        ("1/2", asked(steps=(2,)), r"torch-ddim-3-eta0\.json is left out here"),
        ("1/2", asked(steps=(3, 2)), "in another order"),
        (None, asked(steps=(2, 4)), "not of that sweep"),
    ):
        with pytest.raises(UserError, match=words):
            sweep(out, text, request)
    for lock in (hold_part(out, "part-1-of-2"), hold(out)):
        with lock, pytest.raises(Held, match="another process is at work"):
            sweep(out, "1/2")
    with hold_part(out, "part-1-of-2"), pytest.raises(Held):
        sweep(out)
    assert content(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "somebody's").touch()
    with pytest.raises(UserError, match="not empty"):
        sweep(other, "0/2")


def test_a_cell_that_vanished_is_missed(whole, tmp_path):
    out = tmp_path / "out"
    sweep(out, "0/2")
    (out / "cells" / "torch-ddim-2-eta0.json").unlink()
    with pytest.raises(UserError, match=r"torch-ddim-2-eta0\.json is not there"):
        sweep(out, "1/2")
    assert not (out / "sweep.json").exists()
    assert sweep(out, "0/2")  # it computes the cell anew, and finds all parts done
    assert content(out) == whole


@pytest.mark.parametrize("key", ["reference.sha256", "extractor_sha256"])
def test_cells_scored_against_other_data_are_refused(tmp_path, key):
    """As on two machines of which one has another file of the reference, or of the network."""
    request = {"metrics": ["fid"]}
    for steps, value in ((2, "ab"), (3, "ac")):
        protocol = {key: value, "sampler.steps": steps}
        score = {"metric": "mnist-frechet", "value": 1.0, "interval": None, "split_half": None,
                 "protocol_id": value, "protocol": protocol}  # fmt: skip
        cell = {"backend": "torch", "request": request, "scores": [score], "eta": 0.0,
                "solver": "ddim", "steps": steps, "network_calls": steps,
                "seconds_per_image": None}  # fmt: skip
        write_json(tmp_path / "cells" / f"torch-ddim-{steps}.json", cell)
    with pytest.raises(UserError, match=f"{key}=ab and ac"):
        sweeps.read_cells(tmp_path)


def test_more_cells_join_a_complete_sweep_only_by_resume(whole, tmp_path):
    out = tmp_path / "out"
    sweep(out)
    more = asked(steps=(2, 3, 4))
    with pytest.raises(UserError, match="--resume"):
        sweep(out, "0/2", more)
    assert [sweep(out, f"{k}/2", more, resume=True) for k in (0, 1)] == [False, True]
    assert len(read_json(out / "sweep.json")["cells"]) == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--part", "2/2"], "--part 2/2"), (["--part", "0/2", "--overwrite"], "--overwrite would")],
)
def test_bad_parts_are_one_line(monkeypatch, capsys, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    base = ["sweep", MODEL, "--num", "4", "--metrics", "none", "--steps", "2", "--backend", "torch"]
    code, out, err = call(monkeypatch, capsys, *base, *words, "--out", "out", "--quiet")
    assert code == 2 and said in err and out == ""
    assert len(err.strip().splitlines()) == 1 and not Path("out").exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = call(monkeypatch, capsys, *base, "--part", "0/2", "--out", "out")
    assert code == 2 and "parts already" in err


@pytest.mark.torch
@pytest.mark.slow
def test_the_command_in_parts_is_the_command_at_once(tmp_path):
    """Real images and scores: one process; a launcher's environment; and a part by hand."""
    pixels = np.random.RandomState(0).randint(0, 256, (24, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=pixels)

    def command(out: str, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "diptych", "sweep", MODEL, "--backend", "torch", "--quiet",
            "--solver", "ddim", "--solver", "ddim:spacing=uniform", "--steps", "2", "--num", "8",
            "--features", "mnist", "--reference", str(tmp_path / "real.npz"), "--no-cache",
            "--device", "cpu", "--samples-out", str(tmp_path / f"{out}-samples"),
            "--out", str(tmp_path / out), *more,
        ]  # fmt: skip

    whole = subprocess.run(command("whole"), capture_output=True, text=True, timeout=4 * PATIENCE)
    assert whole.returncode == 0, whole.stderr
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            command("parts", *words), env={**os.environ, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for words, environment in (([], launched), (["--part", "1/2"], {}))
    ]  # fmt: skip
    said = [process.communicate(timeout=4 * PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")
    assert any("tables and figures" in out for out, _ in said)
