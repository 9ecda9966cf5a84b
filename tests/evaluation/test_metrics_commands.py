"""Statistics files, shards, and the commands `evaluate`, `stats` and `compare` on scores."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from commands import call
from diptych.errors import UserError
from diptych.evaluation import Statistics
from diptych.evaluation.protocol import NATIVE
from diptych.evaluation.run import evaluate
from diptych.evaluation.sets import Settings
from diptych.evaluation.shards import write_statistics
from diptych.evaluation.statistics_file import is_statistics, load, save
from diptych.files import hold_place
from fake_features import Fake, open_fake
from metric_sets import QUICK, make_places, scores, sets  # noqa: F401

# Statistics files --------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_uneven_shards_add_up_to_the_whole_to_the_bit(places, tmp_path, suffix):
    network = Fake("mnist")
    paths = [tmp_path / f"{name}{suffix}" for name in ("p", "q", "r", "whole")]
    source = str(places / "real.npz")
    quiet = {"progress": False}
    write_statistics(source, paths[0], network, NATIVE, first=0, num=7, **quiet)
    write_statistics(source, paths[1], network, NATIVE, first=7, num=30, batch=4, **quiet)
    write_statistics(source, paths[2], network, NATIVE, first=37, add=paths[:2], **quiet)
    write_statistics(source, paths[3], network, NATIVE, batch=13, **quiet)
    summed, whole = load(paths[2]), load(paths[3])
    assert summed.statistics == whole.statistics and summed.moments.n == 60
    assert summed.moments.cov.tobytes() == whole.moments.cov.tobytes()
    assert is_statistics(paths[0]) and not is_statistics(places / "real.npz")


def test_statistics_serve_as_reference_and_as_samples(places, tmp_path):
    network = Fake("mnist")
    real, own = tmp_path / "real.npz", tmp_path / "own.npz"
    write_statistics(str(places / "real.npz"), real, network, NATIVE, progress=False)
    write_statistics(str(places / "a0"), own, network, NATIVE, progress=False)
    settings = Settings(("fid",), "mnist", progress=False)
    direct, _ = scores([places / "a0"], places)
    by_file = evaluate([places / "a0"], str(real), settings, network)["scores"][0]
    both = evaluate([own], str(real), settings, network)["scores"][0]
    value = direct["mnist-frechet"].value
    assert by_file["value"] == pytest.approx(value) and both["value"] == pytest.approx(value)
    assert by_file["protocol_id"] == direct["mnist-frechet"].protocol_id
    with pytest.raises(UserError, match="no single features"):
        evaluate([places / "a0"], str(real), Settings(("kid",), "mnist", **QUICK), network)
    with pytest.raises(UserError, match="extractor_sha256"):
        evaluate([places / "a0"], str(real), settings, Fake("mnist", seed=3))


def test_statistics_of_other_tools_are_taken(places, tmp_path):
    rows = np.random.RandomState(0).standard_normal((50, 12))
    np.savez(tmp_path / "other.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    settings = Settings(("fid",), "mnist", progress=False)
    found = evaluate([places / "a0"], str(tmp_path / "other.npz"), settings, Fake("mnist"))
    assert found["scores"][0]["protocol"]["reference.count"] is None


def test_other_tools_read_ours(tmp_path):
    one = Statistics(4)
    one.add(np.random.RandomState(0).standard_normal((9, 4)).astype(np.float32))
    save(tmp_path / "s.npz", one, {})
    with np.load(tmp_path / "s.npz") as file:
        assert file["mu"].shape == (4,) and file["sigma"].shape == (4, 4)
    (tmp_path / "s.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"s\.npz"):
        load(tmp_path / "s.npz")


# Commands ----------------------------------------------------------------------------------------


@pytest.fixture
def fake_network(monkeypatch):
    # The package's attribute of that name is the command, not the module.
    verbs = importlib.import_module("diptych.cli.evaluate")
    monkeypatch.setattr(verbs, "open_network", open_fake)


def test_evaluate_and_compare_on_the_command_line(
    monkeypatch, capsys, fake_network, places, tmp_path
):
    common = ["--reference", places / "real.npz", "--features", "mnist", "--metrics", "fid,prdc",
              "--quiet"]  # fmt: skip
    for model in "ab":
        out = tmp_path / f"{model}.json"
        code, stdout, err = call(
            monkeypatch, capsys, "evaluate", *sets(places, model), *common, "--out", out
        )
        assert code == 0, err
        assert "mnist-frechet" in stdout and "protocol id" in stdout
    words = ["compare", tmp_path / "a.json", tmp_path / "b.json"]
    code, stdout, err = call(monkeypatch, capsys, *words)
    assert code == 0 and "leaves out 0" in stdout.splitlines()[0], err
    code, stdout, _ = call(monkeypatch, capsys, *words, "--json")
    assert code == 0 and json.loads(stdout)["differences"][0]["metric"] == "mnist-frechet"
    common[-2] = "fid"
    call(monkeypatch, capsys, "evaluate", *sets(places, "b"), *common, "--num", "30", "--out",
         tmp_path / "c.json")  # fmt: skip
    code, _, err = call(monkeypatch, capsys, "compare", tmp_path / "a.json", tmp_path / "c.json")
    assert code == 2 and "'num'" in err and len(err.strip().splitlines()) == 1


def test_stats_on_the_command_line(monkeypatch, capsys, fake_network, places, tmp_path):
    out = tmp_path / "s.npz"
    words = ["stats", places / "real.npz", "--features", "mnist", "--quiet", "--out", out]
    code, stdout, err = call(monkeypatch, capsys, *words, "--json")
    assert code == 0 and json.loads(stdout)["n"] == 60, err
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 2 and "--overwrite" in err


@pytest.mark.parametrize("words", [["evaluate", "nowhere", "--reference", "REAL"],
                                   ["stats", "nowhere", "--out", "s.npz"]])  # fmt: skip
def test_images_are_looked_for_before_a_network_is_fetched(monkeypatch, capsys, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    verbs = importlib.import_module("diptych.cli.evaluate")
    monkeypatch.delattr(verbs, "open_network")
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 2 and "nowhere" in err and "not found" in err


@pytest.mark.parametrize("verb", ["evaluate", "sweep"])
@pytest.mark.parametrize(
    "words, message",
    [
        ([], "scores need a reference"),
        (["--metrics", "sfid", "--reference", "mnist:test"], "sfid needs --features inception"),
    ],
)
def test_what_cannot_be_scored_is_not_drawn(
    monkeypatch, capsys, fake_network, tmp_path, verb, words, message
):
    monkeypatch.chdir(tmp_path)
    for module in ("diptych.generate.for_scoring", "diptych.study.sweep.cells"):
        monkeypatch.setattr(f"{module}.draw", lambda *_, **__: pytest.fail("it was drawn"))
    asked = [verb, "zoo:mnist-torch", "--num", "3", "--features", "mnist", *words]
    place = ["--samples-out", "x"] if verb == "evaluate" else ["--out", "x"]
    code, out, err = call(monkeypatch, capsys, *asked, *place)
    assert code == 2 and message in err and err.count("\n") == 1 and out == ""
    assert not list(tmp_path.iterdir())


BAD = {
    "none left": (["stats", "REAL", "--first", "60", "--out", "s.npz"], "none is left after 60"),
    "nothing there": (["evaluate", "nowhere", "--reference", "REAL"], "not found"),
    "no reference": (["evaluate", "REAL"], "scores need a reference"),
    "no such network": (["evaluate", "REAL", "--features", "vgg"], "feature network 'vgg'"),
    "no such protocol": (["evaluate", "REAL", "--protocol", "cleanfid"], "clean-fid"),
    "no such metric": (["evaluate", "REAL", "--metrics", "fid,fud"], "metric 'fud'"),
    "no metric": (["evaluate", "REAL", "--reference", "REAL", "--metrics", " , "], "is empty"),
    "repeats without end": (
        ["evaluate", "REAL", "--reference", "REAL", "--repeats", "1" + 20 * "0"], "10,000 or less",
    ),
    "stats suffix": (["stats", "REAL", "--out", "a.txt"], ".safetensors"),
    "zoo without a place": (
        ["evaluate", "zoo:x", "--num", "3", "--reference", "REAL"],
        "--samples-out",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_commands_are_one_line(monkeypatch, capsys, fake_network, places, tmp_path, case):
    monkeypatch.chdir(tmp_path)
    words, message = BAD[case]
    real = places / "real.npz"
    code, out, err = call(
        monkeypatch, capsys, *[real if word == "REAL" else word for word in words], "--quiet"
    )
    assert code == 2 and message in err and out == ""
    assert len(err.strip().splitlines()) == 1


def test_two_at_once_do_not_write_one_result(monkeypatch, capsys, fake_network, places, tmp_path):
    """The second is refused before its work, and the lock is gone afterwards."""
    common = ["--features", "mnist", "--quiet", "--overwrite", "--out"]
    for verb, out, rest in (("evaluate", "s.json", ["--reference", places / "real.npz"]),
                            ("stats", "s.npz", [])):  # fmt: skip
        words = [verb, places / "a0", *rest, *common, tmp_path / out]
        with hold_place(tmp_path / out):
            code, _, err = call(monkeypatch, capsys, *words)
        assert code == 2 and "another process is at work in it" in err.splitlines()[-1]
        assert len(err.splitlines()) == 1 and not (tmp_path / out).exists()
        code, _, err = call(monkeypatch, capsys, *words)
        assert code == 0, err
        assert [path.name for path in tmp_path.glob("*s.*")] == [out]
        (tmp_path / out).unlink()


def test_a_complete_sample_folder_whose_images_are_not_its_manifest_s_is_refused(
    monkeypatch, capsys, fake_network, places, tmp_path
):
    def add(folder):
        shutil.copy(folder / "00003.png", folder / "00040.png")

    changes = [lambda f: (f / "00039.png").unlink(), lambda f: (f / "00000.png").unlink(), add,
               lambda f: (f / "00007.png").rename(f / "00041.png")]  # fmt: skip
    for i, change in enumerate(changes):
        folder = tmp_path / str(i)
        shutil.copytree(places / "a0", folder)
        change(folder)
        words = ["evaluate", folder, "--features", "mnist", "--reference", places / "real.npz"]
        code, _, err = call(monkeypatch, capsys, *words)
        assert code == 2 and len(err.splitlines()) == 1
        assert "the manifest speaks of 40 images" in err and "sample them again" in err


def test_pictures_put_on_white_are_counted_and_told(
    monkeypatch, capsys, fake_network, places, tmp_path
):
    """Of each set alone; opaque ones with an alpha channel are none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(40):
        seen = 254 if i in (3, 5, 30) else 255
        Image.new("LA", (28, 28), (i, seen)).save(folder / f"{i:02d}.png")
    words = ["evaluate", folder, "--features", "mnist", "--reference", places / "real.npz",
             "--quiet", "--repeats", "2", "--out", tmp_path / "s.json"]  # fmt: skip
    code, _, err = call(monkeypatch, capsys, *words)
    assert code == 0, err
    assert json.loads((tmp_path / "s.json").read_text())["on_white"] == {
        "samples": [2, 1], "reference": 0,
    }  # fmt: skip
    assert "pictures: 2 of 20 pictures have transparent pixels, which were put on white" in err
    code, _, err = call(monkeypatch, capsys, "stats", folder, "--features", "mnist", "--quiet",
                        "--out", tmp_path / "s.npz")  # fmt: skip
    assert code == 0 and "pictures: 3 of 40 pictures have transparent pixels" in err
