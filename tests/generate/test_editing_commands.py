"""`diptych encode` and the editing options of `diptych sample`: bad input is one line, code 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from commands import call, shell
from diptych.data import notes
from diptych.data.crops import Recipe
from diptych.data.picture import decode
from diptych.figures.grids import read_png
from diptych.generate.inputs import read_inputs
from diptych.generate.latents import write_latents

ZOO = ["sample", "zoo:mnist-torch", "--out", "OUT"]
ENCODE = ["encode", "--model", "zoo:mnist-torch", "--out", "OUT"]

BAD = {
    "no image": ([*ENCODE, "nowhere.png"], "nowhere.png: not found"),
    "not a picture": ([*ENCODE, "text.png"], "text.png: is not a"),
    "an empty folder": ([*ENCODE, "empty"], "holds no pictures"),
    "too few images": ([*ENCODE, "small.png", "--num", "2"], "1 images, but --num is 2"),
    "no images": ([*ENCODE, "small.png", "--num", "0"], "--num is 0"),
    "no model": (["encode", "small.png", "--model", "zoo:x", "--out", "OUT"], "zoo model 'x'"),
    "steps of encode": ([*ENCODE, "small.png", "--steps", "1001"], "1001 steps"),
    "refine": ([*ENCODE, "small.png", "--refine", "-1"], "refine is -1"),
    "repeats": ([*ENCODE, "small.png", "--spacing", "official-quad"], "visits timesteps twice"),
    "curve": ([*ENCODE, "small.png", "--curve", "10,x"], "--curve 10,x"),
    "format": ([*ENCODE, "small.png", "--format", "png"], "safetensors or npz"),
    "one end": ([*ZOO, "--interpolate", "3"], "two or more"),
    "num of arcs": ([*ZOO, "--interpolate", "3,7", "--num", "5"], "--frames-between says how many"),
    "noise": ([*ZOO, "--interpolate", "3,7", "--eta", "0.5"], "adds noise of its own"),
    "noisy solver": ([*ZOO, "--interpolate", "3,7", "--solver", "ddpm"], "adds noise of its own"),
    "between alone": ([*ZOO, "--frames-between", "3"], "add --interpolate"),
    "no latents": ([*ZOO, "--latents", "nowhere"], "no latents here"),
    "latents of another": ([*ZOO, "--latents", "wide.safetensors"], "this model needs (N, 1, 28"),
    "more than there are": (
        [*ZOO, "--latents", "two.safetensors", "--num", "3"],
        "holds 2 latents",
    ),
    "other level": (
        [*ZOO, "--latents", "two.safetensors", "--steps", "20"],
        "was encoded up to t=980, this sampler starts at t=950; decode with --steps 50",
    ),
    "latent 5": ([*ZOO, "--latents", "two.safetensors", "--interpolate", "0,5"], "asks for 5"),
    "level alone": ([*ZOO, "--level", "0.5"], "add --from IMAGE"),
    "level": ([*ZOO, "--from", "small.png", "--level", "1.5"], "--level 1.5"),
    "both starts": ([*ZOO, "--from", "small.png", "--latents", "x"], "choose one"),
    "order left": (
        [*ZOO, "--from", "small.png", "--level", "0.1", "--solver", "dpmpp", "--steps", "10"],
        "needs 2 steps or more from level t=99 down, not 1",
    ),
    "eta": ([*ZOO, "--eta", "1.7", "--steps", "10"], "with these timesteps it can be"),
    "frames alone": ([*ZOO, "--frames", "5"], "add --gif, --webp or --mp4"),
    "moments alone": ([*ZOO, "--moments", "5"], "add --strip"),
    "data alone": ([*ZOO, "--data", "here"], "--data only applies to --nearest and --from"),
    "one step": ([*ENCODE, "small.png", "--steps", "1"], "with 1 step visits t=0 alone"),
    "one step of a curve": ([*ENCODE, "small.png", "--curve", "1,9"], "with 1 step visits t=0"),
    "neighbours alone": ([*ZOO, "--neighbours", "5"], "add --nearest"),
    "shown": ([*ZOO, "--strip", "--show", "x1"], "--show is 'x1'"),
    "num": ([*ZOO, "--num", "0"], "--num is 0"),
    "num without end": ([*ZOO, "--num", "1" + 30 * "0"], "10,000,000 images are the most"),
    "steps without end": ([*ZOO, "--steps", "1" + 30 * "0"], "steps"),
    "batch without end": ([*ZOO, "--batch", "1" + 30 * "0"], "10,000,000 images at once"),
    "encoded at once": (
        [*ENCODE, "small.png", "--batch", "1" + 30 * "0"], "10,000,000 images at once",
    ),
    "images without end": ([*ENCODE, "small.png", "--num", "1" + 30 * "0"], "1 images, but --num"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and latents, good and bad."""
    made = tmp_path_factory.mktemp("inputs")
    grey = np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)
    Image.fromarray(grey).save(made / "small.png")
    Image.fromarray(np.zeros((28, 32), np.uint8)).save(made / "large.png")
    Image.fromarray(np.zeros((28, 28, 3), np.uint8)).save(made / "colour.png")
    (made / "text.png").write_text("no picture")
    (made / "empty").mkdir()
    card = {"level": 980, "steps": 50, "spacing": "uniform"}
    write_latents(made / "two.safetensors", np.zeros((2, 1, 28, 28), np.float32), card)
    write_latents(made / "wide.safetensors", np.zeros((2, 3, 28, 28), np.float32), card)
    return made


@pytest.mark.parametrize("words, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_code_2(
    monkeypatch: Any, capsys: Any, tmp_path: Path, folder: Path, words: Any, message: str
) -> None:
    monkeypatch.chdir(folder)
    out = tmp_path / "out"
    code, stdout, stderr = call(monkeypatch, capsys, *[out if w == "OUT" else w for w in words])
    assert code == 2 and message in stderr and stdout == ""
    assert len(stderr.strip().splitlines()) == 1 and not out.exists()


@pytest.mark.parametrize(
    "size, crop, wanted",
    [
        ((28, 32), None, "made 28x28, grey, as in this model's training (crop center)"),
        ((100, 80), "adm", "(crop adm)"),
        ((100, 80), "stretch", "(crop stretch)"),
        ((9, 7), "none", "(crop center)"),
        ((640, 480), "celeba", "(crop center)"),
        ((178, 218), "celeba", "(crop celeba)"),
    ],
)
def test_a_picture_of_any_size_goes_the_way_of_the_training_images(
    tmp_path: Path, capsys: Any, size: tuple[int, int], crop: str | None, wanted: str
) -> None:
    """The same pixels as the data set's reader makes, and one line that says so."""
    notes._SAID.clear()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = read_inputs([str(tmp_path / "photo.png")], (1, 28, 28), crop=crop)
    used = wanted.rpartition("crop ")[2].rstrip(")")
    data = (tmp_path / "photo.png").read_bytes()
    assert np.array_equal(found.pixels[0], decode(data, "photo", Recipe(28, 1, used)))
    said = capsys.readouterr().err
    assert wanted in said and said.startswith("note: 1 of 1 images") and said.count("\n") == 1
    assert found.facts()["images_crop"] == used


def test_a_picture_that_fits_is_left_as_it_is(folder: Path, capsys: Any) -> None:
    found = read_inputs([str(folder / "small.png")], (1, 28, 28), crop="adm")
    assert np.array_equal(found.pixels[0, 0], np.arange(28 * 28).reshape(28, 28) % 256)
    assert capsys.readouterr().err == "" and "images_crop" not in found.facts()


@pytest.mark.slow
def test_images_go_to_latents_and_back_by_the_command_line(tmp_path: Path, folder: Path) -> None:
    """A user's way: encode, decode, interpolate; the manifests say how."""
    codes, back, way = tmp_path / "codes", tmp_path / "back", tmp_path / "way"
    done = shell("encode", "mnist:test", "--num", "2", "--model", "zoo:mnist-torch", "--steps", "5",
                 "--out", codes, "--device", "cpu", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["network_calls"] == 10  # 5 steps, refined once
    ways = [("--out", back), ("--interpolate", "0,1", "--frames-between", "2", "--out", way)]
    for words in ways:
        done = shell("sample", "zoo:mnist-torch", "--latents", codes, "--device", "cpu", *words)
        assert done.returncode == 0, done.stderr
    manifest = json.loads((way / "manifest.json").read_text())
    assert manifest["num"] == 4 and manifest["start"]["points"] == ["0", "1"]
    assert manifest["pictures"] == ["grid.png", "interpolation.png", "progress.png"]
    for i, name in enumerate(("00000.png", "00003.png")):
        apart = read_png(way / name).astype(int) - read_png(back / f"{i:05d}.png")
        assert np.abs(apart).max() <= 1  # another batch size: another rounding


def test_one_picture_of_another_size_does_not_choose_the_crop_of_the_next(tmp_path: Path) -> None:
    notes._SAID.clear()
    rng, paths = np.random.default_rng(0), []
    for name, (width, height) in (("a", (640, 480)), ("b", (178, 218))):
        paths.append(str(tmp_path / f"{name}.png"))
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    found = read_inputs(paths, (1, 28, 28), crop="celeba")
    alone = read_inputs(paths[1:], (1, 28, 28), crop="celeba")
    assert np.array_equal(found.pixels[1], alone.pixels[0])
    assert found.facts()["images_crop"] == "celeba or center"
