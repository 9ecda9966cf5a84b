"""Folders of samples, latents and a sweep as version 0.1.0 wrote them: resumed, found and read.

See tests/old_records/samples/README.md. What was drawn is left as it is; one picture is taken away,
and drawn again.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Panel
from diptych.errors import UserError
from diptych.evaluation.sets import Settings
from diptych.figures.grids import read_png
from diptych.generate.encode import encode_to
from diptych.generate.for_scoring import Drawing, draw
from diptych.generate.inputs import read_inputs
from diptych.generate.latents import read_latents
from diptych.generate.roundtrip import EncodeRequest
from diptych.generate.samples import SampleRequest, sample_to
from diptych.model import load
from diptych.sampling.inversion import make_inversion
from diptych.sampling.options import SamplerOptions
from diptych.sampling.sampler import make_sampler
from diptych.study.sweep import cells as sweeps
from diptych.study.sweep.variants import parse

OLD = Path(__file__).parents[1] / "old_records" / "samples"
ZOO = str(OLD.parent / "mnist-torch")  # the zoo's model of then


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.fixture
def torch(panels: dict[str, Panel]) -> Panel:
    return panels["torch"]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def resume_samples(out: Path, **changes: Any) -> dict[str, Any]:
    settings = {"order": 3, "threshold": 0.99, "spacing": "logsnr", "noise": "host"} | changes
    request = SampleRequest(make_sampler("dpmpp", 4, **settings), 3, 4, 3)
    model = load(ZOO, "torch", device="cpu")
    return sample_to(model, request, out, resume=True, progress=False)


@pytest.mark.torch
def test_a_folder_of_samples_is_resumed(torch: Panel, old: Path) -> None:
    before = read_png(old / "sample" / "00001.png").astype(int)
    kept = stamps(old / "sample")
    (old / "sample" / "00001.png").unlink()
    manifest = torch.call(resume_samples, old / "sample")
    assert manifest["complete"] and manifest["threshold"] == 0.99
    again = read_png(old / "sample" / "00001.png").astype(int)
    assert np.abs(again - before).max() <= 2  # other processors round otherwise
    assert set(stamps(old / "sample")) >= set(kept)


@pytest.mark.torch
@pytest.mark.parametrize(
    "changes, message",
    [
        ({"order": 2}, "was begun with order=3, not 2"),
        ({"threshold": 0.9}, "was begun with threshold=0.99, not 0.9"),
        ({"noise": None}, "was begun with noise=host, not keyed"),
        ({"spacing": "uniform"}, r"was begun with timesteps=\[999, 603, 73, 0\], not"),
    ],
)
def test_other_settings_are_refused_by_the_old_manifest(
    torch: Panel, old: Path, changes: dict[str, Any], message: str
) -> None:
    before = stamps(old / "sample")
    with pytest.raises(UserError, match=message):
        torch.call(resume_samples, old / "sample", **changes)
    assert stamps(old / "sample") == before


def resume_latents(out: Path) -> dict[str, Any]:
    request = EncodeRequest(read_inputs(["mnist:test"], (1, 28, 28), 2), make_inversion(3))
    return encode_to(load(ZOO, "torch", device="cpu"), request, out, resume=True, progress=False)


@pytest.mark.torch
def test_latents_are_resumed_and_read(torch: Panel, old: Path) -> None:
    latents = read_latents(old / "encode", (1, 28, 28))
    assert len(latents.x) == 2 and latents.card["steps"] == 3
    before = stamps(old / "encode")
    manifest = torch.call(resume_latents, old / "encode")
    assert manifest["complete"] and manifest["mse"] == pytest.approx(2.52e-2, rel=0.01)
    after = stamps(old / "encode")
    assert all(after[name] == before[name] for name in ("latents.safetensors", "00000.png"))


def test_the_sets_of_a_sweep_are_found_again(old: Path) -> None:
    """By their folder's name; no framework is needed."""
    drawing = Drawing(SamplerOptions(solver="ddim", steps=2, eta=0.5, clip=True, noise="host"))
    before = stamps(old / "sets")
    (found,) = draw(ZOO, drawing, 2, 1, "torch", "cpu", folder=old / "sets")
    assert found.is_dir() and stamps(old / "sets") == before


def go_on(out: Path, samples_out: Path, noise: str | None = "host") -> None:
    variants = tuple(parse(text) for text in ("ddim:clip", "dpmpp:order=2:spacing=logsnr"))
    settings = Settings(("is",), num=2, progress=False)
    drawing = Drawing(SamplerOptions(noise=noise))
    sweep = sweeps.Sweep(
        ZOO, (2, 3), (0.0, 0.5), drawing, settings, None, variants, scored=False
    )  # fmt: skip
    sweeps.run_panel(sweep, out, "torch", "cpu", lambda: None, samples_out=samples_out)  # type: ignore[arg-type, return-value]


def test_the_cells_of_a_sweep_are_read_and_not_computed_again(old: Path) -> None:
    before = stamps(old / "sweep")
    assert len(before) == 6
    go_on(old / "sweep", old / "none")
    assert stamps(old / "sweep") == before and not (old / "none").exists()
    cells = sweeps.read_cells(old / "sweep")
    assert [cell["solver"] for cell in cells].count("ddim:clip") == 4


def test_old_cells_of_other_settings_are_refused(old: Path) -> None:
    with pytest.raises(UserError, match="was computed with noise=host, not keyed"):
        go_on(old / "sweep", old / "none", None)
    for path in (old / "sweep" / "cells").glob("*.json"):
        cell = json.loads(path.read_text())
        cell["request"]["spacing"] = "quad"
        path.write_text(json.dumps(cell))
    with pytest.raises(UserError, match="was computed with spacing=quad, not None"):
        go_on(old / "sweep", old / "none")
