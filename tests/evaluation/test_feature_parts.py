"""Features in parts give the score of one process, and parts that do not fit are refused."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from commands import call
from diptych.errors import UserError
from diptych.evaluation.feature_parts import load_features, write_part
from diptych.evaluation.images import open_images
from diptych.evaluation.protocol import NATIVE, protocol_for
from diptych.evaluation.run import evaluate
from diptych.evaluation.sets import Settings
from diptych.ranks import Part
from fake_features import Fake, open_fake
from feature_jobs import scored_in_parts
from metric_sets import ALL, QUICK, digits, make_places  # noqa: F401

PLAIN = ("fid", "kid", "is", "prdc", "fid-infinity")


def write(source, out, count, network=None, **how):
    network = network or Fake("mnist")
    protocol = protocol_for(network.name, None)
    for number in reversed(range(count)):
        write_part(str(source), out, network, protocol, Part(number, count),
                   **{"progress": False, "batch": 7, **how})  # fmt: skip
    return out


def result(samples, reference, features="mnist", metrics=PLAIN):
    settings = Settings(metrics, features, batch=7, **QUICK)
    found = evaluate([samples], str(reference), settings, Fake(features))
    return {key: value for key, value in found.items() if key != "seconds"}


@pytest.fixture
def parts(places, tmp_path):
    return write(places / "a0", tmp_path / "parts", 3)


@pytest.mark.parametrize(("features", "metrics"), [("mnist", PLAIN), ("inception", ALL)])
def test_the_score_of_parts_is_that_of_the_whole_to_the_bit(places, tmp_path, features, metrics):
    """As samples, as reference, and with every word around the score."""
    own = write(places / "a0", tmp_path / "own", 3, Fake(features))
    real = write(places / "real.npz", tmp_path / "real", 2, Fake(features))
    whole = result(places / "a0", places / "real.npz", features, metrics)
    assert result(own, places / "real.npz", features, metrics) == whole
    assert result(own, real, features, metrics) == whole


def test_parts_may_be_empty_and_of_some_images(places, tmp_path):
    own = write(places / "a0", tmp_path / "own", 3, batch=13, first=5, num=26)
    found = load_features(own)
    assert (found.first, found.num) == (5, 26)
    settings = Settings(("fid",), "mnist", **QUICK)
    values = []
    for samples in (own, tmp_path / "cut"):
        if samples != own:
            samples.mkdir()
            for i in range(5, 31):
                shutil.copy(places / "a0" / f"{i:05d}.png", samples)
        made = evaluate([samples], str(places / "real.npz"), settings, Fake("mnist"))
        values.append(made["scores"][0]["value"])
    assert values[0] == values[1]


def test_pictures_of_mixed_sizes_and_transparent_ones(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(digits(1, 30)):
        seen = np.full((28, 28), 254 if i in (3, 17, 29) else 255, np.uint8)
        picture = Image.fromarray(np.dstack([image[..., 0], seen]), "LA")
        picture.resize((28, 28) if i % 3 else (20, 24)).save(folder / f"{i:02d}.png")
    own = write(folder, tmp_path / "own", 4, Fake("inception"), batch=3)
    whole = result(folder, folder, "inception", ALL)
    assert result(own, folder, "inception", ALL) == whole
    assert whole["on_white"]["samples"] == [3]


def test_a_part_reads_only_its_own_pictures(places, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(places / "a0", folder)
    images, seen = open_images(folder), []
    pick = images.pick
    object.__setattr__(images, "pick", lambda rows: (seen.extend(rows), pick(rows))[1])
    found = list(images.batches(7, 3, 30, Part(1, 3)))
    assert seen == [*range(10, 17), *range(31, 33)]
    assert np.concatenate([places for places, _ in found]).tolist() == [*range(7, 14), 28, 29]


def rewrite(file, note=None, **arrays):
    with safe_open(str(file), framework="numpy") as held:
        old = json.loads(held.metadata()["note"])
        kept = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
    save_file(kept | arrays, str(file), {"note": json.dumps(old | (note or {}))})


class Elsewhere(Fake):
    """On the other panel."""

    def __init__(self) -> None:
        super().__init__("mnist")
        self.backend = "jittor"


def other(places, parts, source="a0", network=None, **how):
    """Part 1 is replaced by that of other work."""
    made = write(places / source, parts.parent / "other", 3, network, **how)
    shutil.copy(made / "part-1-of-3.safetensors", parts)


ONE, TWO = "part-1-of-3.safetensors", "part-2-of-3.safetensors"
FAULTS = {
    "missing": (lambda _, f: (f / ONE).unlink(), "part-1-of-3 of 3 parts is missing"),
    "two missing": (
        lambda _, f: [(f / name).unlink() for name in (ONE, TWO)],
        "part-1-of-3, part-2-of-3 of 3 parts are missing",
    ),
    "twice": (lambda _, f: shutil.copy(f / ONE, f / TWO), "is part-1-of-3 under another name"),
    "weights": (
        lambda p, f: other(p, f, network=Fake("mnist", seed=1)),
        r"extractor_sha256 \(fake-mnist-1 and fake-mnist-0\)",
    ),
    "network": (lambda p, f: other(p, f, network=Fake("inception")), "in extractor "),
    "samples": (lambda p, f: other(p, f, "a1"), r"in images\."),
    "reference": (lambda p, f: other(p, f, "real.npz"), r"in images.count \(60 and 40\)"),
    "batch": (lambda p, f: other(p, f, batch=5), r"in batch \(5 and 7\)"),
    "panel": (lambda p, f: other(p, f, network=Elsewhere()), r"backend \(jittor and torch\)"),
    "other count": (
        lambda p, f: shutil.copy(
            write(p / "a0", f.parent / "two", 2) / "part-0-of-2.safetensors", f
        ),
        "the others are of",
    ),
    "stranger": (lambda _, f: (f / "notes.txt").touch(), "holds 'notes.txt'"),
    "cut off": (lambda _, f: (f / ONE).write_bytes((f / TWO).read_bytes()[:900]), "is damaged"),
    "rows of others": (
        lambda _, f: rewrite(f / ONE, positions=np.arange(14)),
        "its images are not those of part-1-of-3",
    ),
    "not finite": (
        lambda _, f: rewrite(f / ONE, pool=np.full((14, 12), np.nan, np.float32)),
        "is not an array of finite features",
    ),
    "too few rows": (
        lambda _, f: rewrite(f / ONE, pool=np.ones((13, 12), np.float32)),
        "is not an array of finite features",
    ),
    "bad note": (lambda _, f: rewrite(f / ONE, {"parts": "many"}), "make it again"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_parts_that_do_not_fit_are_refused_in_one_line(places, parts, case):
    spoil, message = FAULTS[case]
    spoil(places, parts)
    with pytest.raises(UserError, match=message) as refusal:
        result(parts, places / "real.npz")
    assert "\n" not in str(refusal.value)


def test_an_evaluation_that_does_not_fit_is_refused(places, parts, tmp_path):
    reference = str(places / "real.npz")
    again = shutil.copytree(parts, tmp_path / "again")
    for samples, network, how, message in (
        ([parts], Fake("mnist", seed=1), {}, "extractor_sha256=fake-mnist-0"),
        ([parts], Fake("mnist"), {"num": 20}, "leave out --num and --repeats"),
        ([parts], Fake("mnist"), {"metrics": ("memorization",)}, "compares pixels"),
        ([parts, again], Fake("mnist"), {}, "the same draw"),
        ([parts, write(places / "b1", tmp_path / "b1", 2)], Fake("mnist"), {}, "weights_sha256"),
    ):
        settings = Settings(**{"features": "mnist", **QUICK, **how})
        with pytest.raises(UserError, match=message):
            evaluate(samples, reference, settings, network)


def test_a_part_of_other_work_is_refused_before_its_work(places, parts):
    network = Fake("mnist")
    for source, how, message in (("a0", {"batch": 5}, "in batch"), ("a1", {}, r"in images\.")):
        with pytest.raises(UserError, match=message):
            write_part(str(places / source), parts, network, NATIVE, Part(1, 3),
                       **{"batch": 7, "progress": False, **how})  # fmt: skip
    assert network.calls == 0


def test_on_the_command_line(monkeypatch, capsys, places, tmp_path):
    monkeypatch.setattr(importlib.import_module("diptych.cli.evaluate"), "open_network", open_fake)
    out, score = tmp_path / "features", tmp_path / "score.json"
    words = ["stats", places / "a0", "--features", "mnist", "--quiet", "--batch", "7", "--out", out]
    common = ["--features", "mnist", "--reference", places / "real.npz", "--quiet", "--json"]
    for number in range(2):
        code, stdout, err = call(monkeypatch, capsys, *words, "--part", f"{number}/2")
        assert code == 0 and f"{number + 1} of 2 parts are there" in stdout, err
        code, _, err = call(monkeypatch, capsys, "evaluate", out, *common)
        assert code == 2 * (number == 0) and ("part-1-of-2 of 2" in err) == (number == 0), err
    found = json.loads(call(monkeypatch, capsys, "evaluate", out, *common, "--out", score)[1])
    whole = json.loads(call(monkeypatch, capsys, "evaluate", places / "a0", *common)[1])
    assert found["scores"] == whole["scores"] and found["classes"] == whole["classes"]
    for more, message in (
        (["--part", "1/2"], "--overwrite"),
        (["--part", "0/3"], "the others are of 3"),
        (["--part", "2/2"], "expected K/N"),
        (["--part", "0/2", "--overwrite", "--add", "x.npz"], "--add is for statistics"),
    ):
        code, _, err = call(monkeypatch, capsys, *words, *more)
        assert code == 2 and message in err and len(err.strip().splitlines()) == 1, err
    code, _, err = call(monkeypatch, capsys, *words, "--part", "1/2", "--overwrite")
    assert code == 0, err


def test_a_rank_extracts_its_part(monkeypatch, capsys, places, tmp_path):
    monkeypatch.setattr(importlib.import_module("diptych.cli.evaluate"), "open_network", open_fake)
    words = ["stats", places / "a0", "--features", "mnist", "--quiet", "--batch", "7"]
    launched = {"WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "", "RANK": "1", "LOCAL_RANK": "1"}
    for key, value in launched.items():
        monkeypatch.setenv(key, value)
    code, out, err = call(monkeypatch, capsys, *words, "--out", tmp_path / "ranks")
    assert code == 0 and "part-1-of-2.safetensors: features of 19 of 40 images" in out, err
    code, _, err = call(monkeypatch, capsys, *words, "--out", tmp_path / "x", "--part", "0/2")
    assert code == 2 and "parts already" in err and not (tmp_path / "x").exists()


def test_both_panels_score_parts_as_the_whole(panel, places, tmp_path):
    """With the shipped classifier; its own batches are the same in parts."""
    whole, parts = panel.call(
        scored_in_parts, panel.name, places / "a0", places / "real.npz", tmp_path, 3, 7
    )
    assert parts == whole and whole["scores"][0]["subject"]["extractor_backend"] == panel.name
