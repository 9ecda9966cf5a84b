"""Scores are only taken up again if network, images and samples are still the same."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import call
from diptych.config.load import load_config
from diptych.errors import UserError
from diptych.evaluation.features.weights_file import PUBLISHED, file_sha256
from diptych.evaluation.sets import Settings
from diptych.files import read_json, write_json
from diptych.generate import for_scoring
from diptych.generate.for_scoring import Drawing, draw
from diptych.sampling.options import SamplerOptions
from diptych.study import protocols
from diptych.study.reproduce import StudyRequest, runner
from diptych.study.reproduce.checks import check
from diptych.study.sweep import cells as sweeps
from diptych.study.sweep.variants import cells, parse
from fake_features import Fake as Network
from studies import Fake

ZOO = "zoo:mnist-torch"
SCORE = {"metric": "mnist-frechet", "value": 1.0, "interval": None, "split_half": None,
         "protocol_id": "0" * 12}  # fmt: skip


def asked(**changes: Any) -> sweeps.Sweep:
    settings = changes.pop("settings", Settings(("fid",), "mnist", num=4, progress=False))
    return sweeps.Sweep(ZOO, (2,), (0.0,), Drawing(batch=4), settings, "mnist:test", **changes)


def a_cell(out: Path, request: dict[str, Any]) -> Path:
    path = out / "cells" / "torch-ddim-2-eta0.json"
    write_json(path, {"backend": "torch", "solver": "ddim", "steps": 2, "eta": 0.0,
                      "network_calls": 2, "seconds_per_image": 0.1, "request": request,
                      "scores": [SCORE]})  # fmt: skip
    return path


def test_a_sweep_of_another_feature_network_is_refused(tmp_path: Path) -> None:
    one, two = (asked(features_sha256=sha).request("w") for sha in ("aa", "bb"))
    path = a_cell(tmp_path, one)
    assert sweeps.is_there(path, one)
    with pytest.raises(UserError, match="was computed with features_sha256=aa, not bb"):
        sweeps.is_there(path, two)
    old = {key: value for key, value in one.items() if key != "features_sha256"}
    assert sweeps.is_there(a_cell(tmp_path, old), two)  # a record of an earlier version
    a_cell(tmp_path, one)
    path.with_name("torch-ddim-3-eta0.json").write_text(
        json.dumps(json.loads(path.read_text()) | {"request": two, "steps": 3})
    )
    with pytest.raises(UserError, match="holds cells with features_sha256=aa and bb"):
        sweeps.read_cells(tmp_path)


def test_the_hash_of_a_network_is_that_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"weights")
    assert file_sha256("inception", None) == PUBLISHED.sha256
    assert len({file_sha256("mnist", None), file_sha256("mnist", tmp_path / "own.pth")}) == 2
    with pytest.raises(UserError, match="no such weights file"):
        file_sha256("mnist", tmp_path / "none.pth")


def test_a_protocol_goes_on_with_its_own_network_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(
        protocols, "run_panel", lambda sweep, *_, **__: seen.append(sweep.features_sha256)
    )
    monkeypatch.setattr(protocols, "read_cells", lambda out: [])
    request = protocols.ProtocolRequest("ddim-table1", ZOO, (2,), (2,), progress=False)
    for seed in (0, 1):
        protocols.run(request, tmp_path, "torch", "cpu", lambda: Network(seed=seed))  # noqa: B023
    assert seen == ["fake-inception-0", "fake-inception-1"]


@pytest.mark.parametrize("change", [{"train": "b.npz"}, {"held_out": "c.npz"}, {"mirrored": True}])
def test_memorization_of_other_training_images_is_another_sweep(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    settings = Settings(("memorization",), "mnist", num=4, train="a.npz", held_out="h.npz")
    one, two = (asked(settings=s).request("w") for s in (settings, replace(settings, **change)))
    with pytest.raises(UserError, match=f"was computed with {next(iter(change))}="):
        sweeps.is_there(a_cell(tmp_path, one), two)
    old = {key: value for key, value in one.items() if key not in sweeps.OF_MEMORISATION}
    assert sweeps.is_there(a_cell(tmp_path, old), two)


def test_a_study_scores_again_with_other_inception_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "report_study", lambda out: None)
    monkeypatch.setattr("diptych.study.reproduce.checks.inception_weights", lambda path: None)
    out, weights = tmp_path / "study", tmp_path / "inception.pth"
    weights.write_bytes(b"one")
    fake = Fake(out)
    fake.go(inception=str(weights))
    fake.ran.clear()
    fake.go(inception=str(weights))
    assert fake.ran == []
    weights.write_bytes(b"other")
    fake.go(inception=str(weights))
    assert fake.ran == [["scores-torch-seed0-inception"], ["scores-jittor-seed0-inception"]]
    for path in (out / "stages").iterdir():  # an earlier version did not note the file
        note = read_json(path)
        note["made_of"].pop(str(weights), None)
        write_json(path, note)
    weights.write_bytes(b"a third")
    fake.ran.clear()
    fake.go(inception=str(weights))
    assert fake.ran == []
    moved = tmp_path / "moved.pth"
    moved.write_bytes(b"another")
    with pytest.raises(UserError, match=r"moved\.pth holds other weights; name that file again"):
        check(StudyRequest("mnist", inception=str(moved)), out)
    check(StudyRequest("mnist", inception=str(shutil.copy(weights, moved))), out)


def drawn(folder: Path, seed: int = 0) -> Path:
    """A complete sample folder of the zoo's model, found by its name."""

    def sample(model: Any, request: Any, out: Path, **_: Any) -> None:
        write_json(out / "manifest.json", {"complete": True} | manifest(model, request))
        for i in range(request.num):
            (out / f"{i:05d}.png").write_bytes(b"")

    def manifest(found: Any, request: Any) -> dict[str, Any]:
        from diptych.config.load import flatten
        from diptych.diffusion.schedule import make_schedule

        card = request.sampler.card(make_schedule(found.config.diffusion))
        return {**card, "start": None, "num": request.num, "seed": request.seed, **found.facts(),
                "batch": request.batch, "backend": "torch", "precision": "fp32",
                "config": flatten(found.config)}  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "diptych.model.load", lambda source, *_, **__: for_scoring.find_weights(source)
        )
        patch.setattr(for_scoring, "sample_to", sample)
        return draw(ZOO, DRAWING, 3, 1, "torch", "cpu", folder=folder)[0]


DRAWING = Drawing(SamplerOptions(solver="ddim", steps=2, eta=0.0), batch=4)


@pytest.mark.parametrize(
    "key, value", [("diffusion.beta_end", 0.5), ("data.rescaled", False), ("timesteps", [900, 1])]
)
def test_complete_samples_of_another_schedule_are_not_taken(
    tmp_path: Path, key: str, value: Any
) -> None:
    out = drawn(tmp_path)
    again = draw(ZOO, DRAWING, 3, 1, "torch", "cpu", folder=tmp_path)
    assert again == [out]  # without a framework
    manifest = read_json(out / "manifest.json")
    (manifest["config"] if "." in key else manifest)[key] = value
    write_json(out / "manifest.json", manifest)
    with pytest.raises(UserError, match=f"begun with {key}=.*remove that folder.*--samples-out"):
        draw(ZOO, DRAWING, 3, 1, "torch", "cpu", folder=tmp_path)


ENDS = ["diffusion.zero_terminal_snr=true", "diffusion.objective=v"]


def test_calls_are_those_of_a_schedule_that_ends_in_noise() -> None:
    """The first step takes one call there, so Heun's method makes even numbers of calls."""
    variants = [parse("ddim"), parse("heun"), parse("heun:spacing=uniform")]
    for config, wanted in (
        (load_config("tiny", ENDS), [("ddim", 8), ("heun", 5)]),
        (load_config("tiny"), [("ddim", 8)]),
    ):
        found, left_out = cells(variants, Drawing(), (), (8,), (0.0,), config)
        assert [(v.name, d.options.steps) for v, d in found] == wanted
        assert len(left_out) == 3 - len(wanted)


def test_a_cell_that_the_schedule_forbids_is_refused_before_any_is_drawn() -> None:
    variants = [parse("ddim"), parse("dpmpp:order=3")]
    cells(variants, Drawing(), (3,), (), (0.0,), load_config("tiny"))
    with pytest.raises(UserError, match="needs 4 steps or more where the first level is"):
        cells(variants, Drawing(), (3,), (), (0.0,), load_config("tiny", ENDS))


def test_a_study_refuses_an_eta_that_the_schedule_forbids(
    monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path
) -> None:
    words = ["reproduce", "mnist", "--quick", "--sweep-steps", "2", "--sweep-etas", "0,400",
             "--out", tmp_path / "out"]  # fmt: skip
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 2 and "eta" in err and not (tmp_path / "out").exists()
    assert len(err.strip().splitlines()) == 1


def test_both_differences_of_images_count_alike() -> None:
    from diptych.report.numbers.images import pixel_numbers
    from diptych.study.reproduce.difference import difference

    a, b = np.random.RandomState(0).randint(0, 256, (2, 5, 1, 4, 4), np.uint8)
    picture, numbers = difference(a, b)
    assert picture.dtype == np.uint8 and numbers.items() >= pixel_numbers(a, b).items()
    assert numbers["max_levels"] == np.abs(a.astype(int) - b).max()
