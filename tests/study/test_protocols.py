"""Published protocols, rehearsed at tiny size: stand-in Inception weights, few images."""

from __future__ import annotations

import json

import numpy as np
import pytest

import panel_jobs
from commands import call
from diptych.errors import UserError
from diptych.evaluation.features import open_extractor
from diptych.study import protocols
from diptych.study.protocols import PROTOCOLS, ProtocolRequest
from fake_features import Fake
from inception_file import write


@pytest.fixture(scope="module")
def run(panels, tmp_path_factory):
    """A colour run of the PyTorch panel, with 20 timesteps."""
    run = tmp_path_factory.mktemp("run") / "torch"
    config = panel_jobs.small("train.steps=1", "diffusion.timesteps=20")
    panels["torch"].call(panel_jobs.run, "torch", config, run)
    return run


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("real") / "real.npz"
    np.savez(path, images=np.random.RandomState(0).randint(0, 256, (18, 14, 14), dtype=np.uint8))
    return str(path)


def rehearsed(request, out, weights=None):
    """Run a protocol in a panel's process, with a file of Inception weights or a fake network."""

    def network():
        return open_extractor("inception", "torch", "cpu", weights) if weights else Fake()

    return protocols.run(request, out, "torch", "cpu", network)


def test_fid_at_two_sizes(panels, run, reference, tmp_path):
    request = ProtocolRequest(
        "cifar10-fid", str(run), (16, 18), (2,), reference=reference, progress=False
    )
    found = panels["torch"].call(rehearsed, request, tmp_path / "out")
    rows = [(row["metric"], row["num"]) for row in found["rows"]]
    metrics = ("fid", "fid-infinity", "is")
    assert rows == [(metric, num) for num in (16, 18) for metric in metrics]
    assert all(np.isfinite(row["value"]) for row in found["rows"])
    assert json.loads((tmp_path / "out/protocol.json").read_text()) == found
    for line in ("num is 16, 18 in place of 5000, 10000.", "steps is 2 in place of 50."):
        assert line in found["deviations"]
    kept = json.loads((tmp_path / "out/scores-2-eta0-16.json").read_text())["scores"][0]
    assert kept["protocol"]["protocol"] == "clean-fid" and kept["protocol"]["num"] == 16
    assert len(list((tmp_path / "out/samples").glob("*/0*.png"))) == 18
    assert "in place of" in protocols.render(found)


def test_table1_has_a_row_for_every_cell_beside_the_published_one(panels, run, reference, tmp_path):
    asked = {"steps": (4, 20), "num": (2,), "reference": reference, "progress": False}
    first = ProtocolRequest("ddim-table1", str(run), **asked | {"steps": (4,)})
    panels["torch"].call(rehearsed, first, tmp_path)
    drawn = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("samples/**/*.png")}
    found = panels["torch"].call(
        rehearsed, ProtocolRequest("ddim-table1", str(run), **asked), tmp_path
    )
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in drawn.items())
    rows = {(row["row"], row["steps"]): row for row in found["rows"]}
    etas = ("0", "0.2", "0.5", "1", "sigma-hat")
    assert set(rows) == {(eta, steps) for eta in etas for steps in (4, 20)}
    assert len(found["rows"]) == 10
    assert rows["0", 4]["solver"] == "ddim:spacing=official-quad"
    assert rows["sigma-hat", 20]["solver"] == "ddpm-noisy:spacing=uniform"
    cards = [json.loads(path.read_text()) for path in tmp_path.rglob("samples/*/manifest.json")]
    quad = next(c for c in cards if c["steps"] == 4 and c["eta"] == 0)
    assert quad["timesteps"] == [int(t) for t in np.linspace(0, 16**0.5, 4) ** 2][::-1]
    assert any("steps is 4, 20" in line for line in found["deviations"])


def test_a_cell_with_stand_in_inception_weights(panels, run, tmp_path):
    weights = write(tmp_path / "inception.safetensors")
    pixels = np.random.RandomState(0).randint(0, 256, (3, 14, 14), dtype=np.uint8)
    np.savez(tmp_path / "real.npz", images=pixels)
    request = ProtocolRequest(
        "ddim-table1", str(run), (2,), (20,), (0.0,), str(tmp_path / "real.npz"), progress=False
    )
    found = panels["torch"].call(rehearsed, request, tmp_path / "out", weights)
    assert [(row["metric"], row["row"]) for row in found["rows"]] == [
        ("fid", "0"), ("fid", "sigma-hat")
    ]  # fmt: skip
    assert all(row["value"] > 0 and row["num"] == 2 for row in found["rows"])


def test_the_published_numbers_are_the_papers():
    table = PROTOCOLS["ddim-table1"]
    assert table.num == (50_000,) and len(table.fid) == 25
    assert table.fid["0", 10] == 13.36 and table.fid["sigma-hat", 1000] == 3.17
    assert PROTOCOLS["cifar10-fid"].num == (5_000, 10_000)
    assert PROTOCOLS["cifar10-fid"].reference == "cifar10:train+test"


@pytest.mark.parametrize(
    "words, message",
    [
        (["ddim-table2", "run"], "did you mean 'ddim-table1'"),
        (["ddim-table1", "run", "--num", "5,6"], "takes one --num"),
        (["cifar10-fid", "run", "--steps", "5,5"], "different values"),
        (["cifar10-fid", "run", "--features", "minst"], "'minst'"),
        (["cifar10-fid", "run", "--features", "mnist", "--inception", "x.pth"], "is mnist; leave"),
    ],
)
def test_bad_requests_are_one_line_and_make_no_folder(
    monkeypatch, capsys, tmp_path, words, message
):
    code, _, err = call(monkeypatch, capsys, "protocol", *words, "--out", tmp_path / "out")
    assert code == 2 and message in err and not (tmp_path / "out").exists()


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match="protocol 'x'"):
        ProtocolRequest("x", "run").chosen()
