"""Sets that share images, starts of trajectories, damaged scores, features that are not kept."""

from __future__ import annotations

import importlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from commands import call
from diptych.config.load import load_config
from diptych.data import notes
from diptych.errors import UserError
from diptych.evaluation.comparison import compare_scores
from diptych.evaluation.feature_parts import write_part
from diptych.evaluation.images import open_images, trained_on
from diptych.evaluation.protocol import NATIVE
from diptych.evaluation.run import evaluate
from diptych.evaluation.score import Score, check_alike
from diptych.evaluation.sets import Settings, sample_sets
from diptych.evaluation.shards import write_statistics
from diptych.evaluation.statistics_file import load, save
from diptych.ranks import Part
from fake_features import Fake, open_fake
from metric_sets import QUICK, make_places, scores, sets  # noqa: F401

SETTINGS = Settings(("fid",), "mnist", **QUICK)


def shard(places, out, first, num, add=()):
    write_statistics(str(places / "real.npz"), out, Fake("mnist"), NATIVE, first=first, num=num,
                     add=add, progress=False)  # fmt: skip
    return out


def test_a_shard_is_not_added_twice(places, tmp_path):
    """Not itself, not within a sum, not with some of its images."""
    one = shard(places, tmp_path / "one.npz", 0, 7)
    two = shard(places, tmp_path / "two.npz", 7, 9, [one])
    again = shutil.copy(one, tmp_path / "again.npz")
    for first, add in ((30, [one, again]), (30, [two, one]), (5, [one]), (15, [two])):
        with pytest.raises(UserError, match=r"npz: holds images that .* would count twice"):
            shard(places, tmp_path / "sum.npz", first, 4, add)
    assert not (tmp_path / "sum.npz").exists()
    whole = shard(places, tmp_path / "whole.npz", 16, None, [two])
    assert load(whole).moments.n == 60 and len(load(whole).protocol["images.parts"]) == 3


def test_a_sum_of_an_earlier_version_is_added_once(places, tmp_path):
    one = shard(places, tmp_path / "one.npz", 0, 7)
    two = shard(places, tmp_path / "two.npz", 7, 9, [one])
    old = load(two)
    del old.protocol["images.parts"]
    save(tmp_path / "old.npz", old.statistics, old.protocol)
    again = shutil.copy(tmp_path / "old.npz", tmp_path / "again.npz")
    assert load(shard(places, tmp_path / "x.npz", 20, 5, [tmp_path / "old.npz"])).moments.n == 21
    with pytest.raises(UserError, match="would count twice"):
        shard(places, tmp_path / "y.npz", 20, 5, [tmp_path / "old.npz", again])


def test_the_same_pictures_are_no_repeats(places, tmp_path):
    real = places / "real.npz"
    shutil.copy(real, tmp_path / "copy.npz")
    (tmp_path / "link.npz").symlink_to(real)
    images = open_images(real)
    for sources in ([images, images], [images, open_images(real)], [real, tmp_path / "copy.npz"],
                    [real, tmp_path / "link.npz"]):  # fmt: skip
        with pytest.raises(UserError, match="same draw or share images"):
            sample_sets(sources, SETTINGS)
    pixels = np.load(real)["images"]
    np.savez(tmp_path / "turned.npz", images=pixels[::-1])
    (tmp_path / "pngs").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(np.squeeze(image)).save(tmp_path / "pngs" / f"{i:03}.png")
    for name in ("turned.npz", "pngs"):
        with pytest.raises(UserError, match=r"images of .* are in real.npz too, pixel for pixel"):
            sample_sets([real, tmp_path / name], SETTINGS)
    np.savez(tmp_path / "other.npz", images=pixels ^ 1)
    assert len(sample_sets([real, tmp_path / "other.npz"], SETTINGS)) == 2


def test_runs_and_folders_of_samples_are_no_sets(places, tmp_path):
    """A run's grids are no samples, and two samplers are not mixed."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text("")
    shutil.copytree(places / "a0", run / "grids")
    with pytest.raises(UserError, match="is a run, and its grids are no set of pictures"):
        open_images(run)
    shutil.copytree(places / "a0", tmp_path / "both" / "a0")
    shutil.copytree(places / "a1", tmp_path / "both" / "a1")
    with pytest.raises(UserError, match="holds samples in a0, a1, which have samplers"):
        open_images(tmp_path / "both")


def test_what_means_little_is_told(places, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(notes, "_SAID", set())  # each is told once in a process
    real = places / "real.npz"
    asked = Settings(("fid",), "mnist", **(QUICK | {"repeats": 7, "num": None}))
    evaluate([real], real, asked, Fake("mnist"))
    evaluate([real], real, Settings(("is",), "mnist", **QUICK), Fake("mnist"))
    told = caplog.text
    assert "images are in none of the 7 sets of" in told
    assert "is a sample set and the reference too" in told
    assert "the reference is not used by is" in told
    assert "a covariance of so few is biased" in told


def test_inception_scores_are_alike_whatever_the_reference(places):
    asked = Settings(("is",), "mnist", **QUICK)
    alone = evaluate([places / "a0"], None, asked, Fake("mnist"))["scores"]
    both = Settings(("fid", "is"), "mnist", **QUICK)
    beside = evaluate([places / "a0"], places / "real.npz", both, Fake("mnist"))["scores"]
    one, two = (next(Score.from_json(s) for s in each if s["metric"] == "mnist-is")
                for each in (alone, beside))  # fmt: skip
    check_alike(one, two)
    assert one.value == two.value


def test_features_of_images_in_common_are_no_repeats(places, tmp_path):
    folders = []
    for first in (0, 20, 10):
        folders.append(tmp_path / f"from{first}")
        write_part(str(places / "a0"), folders[-1], Fake("mnist"), NATIVE, Part(0, 1), first=first,
                   num=20, progress=False)  # fmt: skip
    assert len(sample_sets(folders[:2], SETTINGS)) == 2
    with pytest.raises(UserError, match="same draw or share images"):
        sample_sets(folders[1:], SETTINGS)


def started(places, folder, card):
    """The samples a0, as if they had begun elsewhere than in noise."""
    shutil.copytree(places / "a0", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"start": card}))
    return folder


def test_the_start_of_trajectories_is_in_the_protocol(places, tmp_path):
    plain = scores([places / "a0"], places)[0]["mnist-frechet"]
    none = scores([started(places, tmp_path / "none", None)], places)[0]["mnist-frechet"]
    assert none.protocol == plain.protocol and "sampler.start" not in plain.protocol
    card = {"kind": "latents", "sha256": "ab", "of": list(range(9))}
    decoded = started(places, tmp_path / "decoded", card)
    found = scores([decoded], places)[0]["mnist-frechet"]
    assert found.protocol_id != plain.protocol_id
    assert found.protocol["sampler.start"].startswith("latents ")
    with pytest.raises(UserError, match=r"differ in start \(noise and latents [0-9a-f]{12}\)"):
        sample_sets([places / "a1", decoded], SETTINGS)


@pytest.mark.parametrize(
    "change",
    [{"value": None}, {"value": "low"}, {"repeats": ["x"]}, {"std": "x"}, {"split_half": []},
     {"within": ["a", "b"]}, {"within": 3}, {"subject": None}],
)  # fmt: skip
def test_damaged_scores_are_refused_in_one_line(monkeypatch, capsys, places, tmp_path, change):
    _, whole = scores(sets(places, "a"), places)
    (tmp_path / "a.json").write_text(json.dumps(whole))
    whole["scores"][0] |= change
    (tmp_path / "b.json").write_text(json.dumps(whole))
    compare_scores(tmp_path / "a.json", tmp_path / "a.json")
    capsys.readouterr()
    code, _, err = call(monkeypatch, capsys, "compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 2 and len(err.strip().splitlines()) == 1
    assert "b.json" in err and next(iter(change)) in err


@pytest.mark.parametrize(
    "words", [["--raw"], ["--seed", "3"], ["--sample-batch", "8"], ["--samples-out", "x"]]
)
def test_settings_of_sampling_are_refused_for_images(monkeypatch, capsys, places, words):
    module = importlib.import_module("diptych.cli.evaluate")
    monkeypatch.setattr(module, "open_network", open_fake)
    code, _, err = call(monkeypatch, capsys, "evaluate", places / "a0", "--features", "mnist",
                        "--reference", places / "real.npz", "--quiet", *words)  # fmt: skip
    assert code == 2 and f"{words[0]} says how a run is sampled" in err
    assert len(err.strip().splitlines()) == 1


def test_features_of_training_pictures_are_not_kept(places, tmp_path):
    """Their identity is made from names and sizes: a changed picture of one size looks the same."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(12):
        Image.new("L", (28, 28), 3 * i).save(folder / f"{i:02d}.bmp")  # all of one size
    config = load_config("mnist", [f"data.source={folder}", "data.channels=1"])
    cached = Settings(("fid",), "mnist", cache=tmp_path / "cache", **QUICK)

    def value():
        return evaluate([places / "a0"], trained_on(config), cached, Fake("mnist"))["scores"][0]

    before = value()
    for i in range(12):
        Image.new("L", (28, 28), 255 - 3 * i).save(folder / f"{i:02d}.bmp")
    assert value()["value"] != before["value"]
    assert not (tmp_path / "cache").exists()
