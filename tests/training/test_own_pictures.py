"""Own pictures: what is found, which settings are chosen, and what is refused."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from commands import call
from diptych.config.load import load_config
from diptych.data import notes
from diptych.data.dataset import load_configured
from diptych.data.packed.job import Packing
from diptych.data.packed.write import prepare
from diptych.data.picture import open_header, open_picture, size_of
from diptych.data.survey import survey
from diptych.errors import UserError
from diptych.network.plan import make_plan
from diptych.training.batches import Batches
from diptych.training.own_pictures import choose, choose_for, given_settings, is_pictures


def put(folder: Path, count: int, size: tuple[int, int] = (40, 36), colour: bool = True) -> Path:
    """`count` random pictures as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(count)
    for i in range(count):
        pixels = draws.integers(0, 256, (size[1], size[0], 3), np.uint8)
        picture = Image.fromarray(pixels if colour else pixels.mean(-1).astype(np.uint8))
        if not colour and i % 2:
            picture = picture.convert("RGB")  # grey pixels in an RGB file
        picture.save(folder / f"{i:04d}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Six colour pictures in two classes, beside other files."""
    root = tmp_path_factory.mktemp("own") / "my pictures"
    put(root / "cats", 4)
    put(root / "dogs", 2, (70, 50))
    (root / "dogs" / "list.txt").write_text("x")
    (root / "dogs" / ".hidden.png").write_bytes(b"x")
    return root


def test_a_survey_finds_what_is_there(pictures):
    found = survey(str(pictures))
    assert found.source == f"folder:{pictures}" and found.images == 6 and found.classes == 2
    assert found.sizes == {"40x36": 4, "70x50": 2} and found.kinds == {"PNG RGB": 6}
    assert found.sides.tolist() == [36] * 4 + [50] * 2 and found.colour
    assert found.left_out == {"hidden": 1, "of another kind": 1}
    assert found.text() == (
        f"folder:{pictures}: 6 pictures; 4 40x36, 2 70x50; all PNG RGB, in colour; 2 classes"
    )


def test_a_camera_held_upright_and_a_damaged_header(tmp_path):
    put(tmp_path, 1)
    turned = Image.new("RGB", (60, 40))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    found = survey(str(tmp_path))
    assert found.sizes == {"40x36": 1, "40x60": 1} and len(found.bad) == 1
    assert "damaged.png" in found.bad[0] and "1 cannot be used" in found.text()
    assert given(found, {"data.skip_bad": True})["train.batch_size"] == 2


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("noted", ["exif", "xmp"])
def test_a_header_s_size_is_that_of_the_decoded_picture(kind, noted):
    """The orientation may be noted in EXIF or in XMP, and turns the picture either way."""
    exif = Image.Exif()
    exif[0x0112] = 8
    more = {"exif": exif} if noted == "exif" else {"xmp": XMP.encode()}
    if (kind, noted) == ("PNG", "xmp"):
        more = {"pnginfo": PngImagePlugin.PngInfo()}
        more["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP)
    file = io.BytesIO()
    Image.new("RGB", (60, 40)).save(file, kind, **more)
    found = size_of(open_header(file.getvalue(), ""))
    assert found == open_picture(file.getvalue(), "").size
    turned = kind != "BMP" and (kind, noted) != ("TIFF", "xmp")
    assert found == ((40, 60) if turned else (60, 40))


def test_grey_pictures_are_grey_whatever_their_files_say(tmp_path):
    assert not survey(str(put(tmp_path, 4, colour=False))).colour


def given(found, settings=()):
    return choose(found, dict(settings)).settings


@pytest.mark.parametrize(
    ("size", "colour", "preset", "mult", "lowest"),
    [
        (28, False, "mnist", [1, 3, 6], 7),
        (16, False, "mnist", [1, 2], 8),
        (32, True, "small_colour", [1, 2, 2], 8),
        (64, True, "small_colour", [1, 2, 2, 2], 8),
        (64, False, "small_colour", [1, 2, 2, 2], 8),
        (256, True, "small_colour", [1, 1, 2, 2, 2, 2], 8),
        (100, True, "small_colour", [1, 1, 2], 25),
    ],
)
def test_a_preset_for_each_size(tmp_path, size, colour, preset, mult, lowest):
    """The chosen settings are a config, and the printed line is the same one."""
    found = survey(str(put(tmp_path, 3, (300, 280), colour)))
    chosen = choose(found, {"data.image_size": size})
    assert chosen.preset == preset
    assert chosen.settings["model.ch_mult"] == mult
    assert chosen.settings["model.attn_resolutions"] == [lowest]
    config = load_config(chosen.preset, chosen.overrides)
    assert config.data.channels == (3 if colour else 1) and config.data.image_size == size
    words = shlex.split(chosen.line({"seed": 3, "train.lr": 0.5}))
    sets = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    again = load_config(words[2], [f"data.source={words[4]}", *sets])
    assert again == load_config(chosen.preset, [*chosen.overrides, "seed=3", "train.lr=0.5"])


def test_the_number_of_pictures_counts(tmp_path):
    def of(count: int, **more):
        pixels = np.zeros((count, 8, 8, 3), np.uint8)
        np.savez(tmp_path / f"{count}.npz", images=pixels)
        return choose(survey(str(tmp_path / f"{count}.npz")), more)

    few, some, many = of(100), of(1500), of(20_000)
    assert "data.held_out" not in few.settings and "train.validate_every" not in few.settings
    assert any("too few to hold some out" in note for note in few.notes)
    assert any("few; the network may learn to repeat" in note for note in few.notes)
    assert few.settings["train.steps"] == 5000 and few.settings["train.batch_size"] == 64
    assert some.settings["data.held_out"] == 150 and some.settings["model.dropout"] == 0.1
    assert some.settings["train.validate_every"] == 1000
    assert many.settings["data.held_out"] == 1000 and "model.dropout" not in many.settings
    assert any("cifar10 in place of small_colour" in note for note in many.notes)
    for given, steps in (({}, 22), ({"train.batch_size": 8}, 169), ({"data.held_out": 0}, 24)):
        told = {"train.epochs": 4, **given}
        settings = of(1500, **told).settings
        assert settings["train.steps"] is None  # it would overrule the epochs
        assert settings["train.warmup_steps"] == 4 * steps // 10
        found = load_config("small_colour", [f"{k}={json.dumps(v)}" for k, v in
                                             {**settings, **told}.items()])  # fmt: skip
        batches = Batches(found, make_plan(found), np.zeros((1500, 3, 8, 8), np.uint8))
        assert found.train.last_step(batches.steps_per_epoch) == 4 * steps
        assert ("train.validate_every" in settings) == ("data.held_out" not in given)


def test_a_size_is_chosen_and_said(pictures, tmp_path):
    chosen = choose(survey(str(pictures)), {})
    assert chosen.settings["data.image_size"] == 36
    assert any("--size chooses another" in note for note in chosen.notes)
    large = choose(survey(str(put(tmp_path / "large", 2, (200, 150)))), {})
    assert large.settings["data.image_size"] == 64
    enlarged = choose(survey(str(pictures)), {"data.image_size": 48})
    assert any("4 of 6 pictures are smaller than 48" in note for note in enlarged.notes)
    hints = ("model.num_classes=2", "data.random_flip=false")
    assert [any(hint in note for note in chosen.notes) for hint in hints] == [True, True]
    given = choose(survey(str(pictures)), {"model.num_classes": 2, "data.random_flip": False})
    assert not any(hint in note for note in given.notes for hint in hints)
    with pytest.raises(UserError, match="below 8 pixels"):
        choose(survey(str(put(tmp_path / "dots", 2, (5, 5)))), {})


@pytest.mark.parametrize(
    ("size", "asked", "kept"),
    [((640, 480), {}, "48x64"), ((480, 640), {}, "64x48"), ((150, 100), {}, "64x96"),
     ((192, 108), {}, "64x112"), ((500, 333), {"data.image_size": 32}, "32x48")],
)  # fmt: skip
def test_a_shape_that_most_pictures_share_can_be_kept(tmp_path, size, asked, kept):
    """A square stays the default; the size that is said trains without cutting."""
    put(tmp_path, 3, size)
    put(tmp_path / "others", 2, (90, 90))
    found = survey(str(tmp_path))
    chosen = choose(found, asked)
    assert chosen.settings["data.image_size"] == asked.get("data.image_size", 64)
    assert any(f"--size {kept} (height x width) keeps" in note for note in chosen.notes)
    wide = choose(found, {**asked, "data.image_size": kept})
    assert not any("keeps their shape" in note for note in wide.notes)
    assert any("until it just covers" in note for note in wide.notes)
    config = load_config(wide.preset, wide.overrides)
    assert config.data.size_text == kept
    shorter = min(config.data.sides)
    assert config.model.attn_resolutions == (shorter // 2 ** (len(config.model.ch_mult) - 1),)
    mixed = survey(str(put(tmp_path / "mixed", 3, (90, 90)).parent))
    assert not any("keeps their shape" in note for note in choose(mixed, asked).notes)


def test_what_is_no_size_is_refused_in_one_line(pictures):
    for wrong in ("48", "48x", [48], [48, 64, 3], True, "48x63", [2, 64]):
        with pytest.raises(UserError, match="--size"):
            choose(survey(str(pictures)), {"data.image_size": wrong})


def test_arrays_keep_their_shape(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 3, 32, 32), np.uint8))
    found = survey(f"npz:{tmp_path / 'a.npz'}")
    assert found.shape == (3, 32, 32) and given(found)["data.image_size"] == 32
    with pytest.raises(UserError, match="3 channels, not 1"):
        given(found, {"data.channels": 1})
    np.save(tmp_path / "b.npy", np.zeros((9, 96, 144), np.uint8))
    wide = choose(survey(str(tmp_path / "b.npy")), {})
    assert wide.settings["data.image_size"] == (48, 72)  # halved: the shorter side is at most 64
    assert any("size 48x72, as the images are 96x144" in note for note in wide.notes)
    images = load_configured(load_config("tiny", [f"data.source=folder:{put(tmp_path / 'p', 3)}",
                                                  "data.channels=3"]).data)  # fmt: skip
    prepare(Packing(images, tmp_path / "c.npy", "center", False, 1, False), False)
    packed = survey(str(tmp_path / "c.npy"))
    assert packed.source == f"packed:{tmp_path / 'c.npy'}" and packed.shape == (3, 14, 14)


def test_what_is_taken_for_pictures(pictures, tmp_path, monkeypatch):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "own.yaml").write_text("seed: 1\n")
    (tmp_path / "a.npz").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for text in (str(pictures), "./tiny", "folder:x", "npz:x", "hf:x", "packed:x", "a.npz"):
        assert is_pictures(text), text
    for text in ("tiny", "own.yaml", "nothing", "cifar10", "a" * 5000, "nul\0"):
        assert not is_pictures(text), text


def test_colour_that_a_setting_throws_away_is_said(pictures, capsys, monkeypatch):
    monkeypatch.setattr(notes, "_SAID", set())
    grey = load_config("mnist", [f"data.source=folder:{pictures}"]).data
    assert load_configured(grey).images.shape == (6, 1, 28, 28)
    assert "data.channels=1 makes them grey" in capsys.readouterr().err
    load_configured(grey.model_copy(update={"channels": 3}))
    assert "grey" not in capsys.readouterr().err


def test_a_run_is_no_folder_of_pictures(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(UserError, match=r"is a run, .* --resume"):
        choose_for(str(tmp_path), [], None, print)


def test_the_command_says_what_is_missing(monkeypatch, capsys, pictures, tmp_path):
    out = tmp_path / "run"
    for words, said in (
        (["tiny", "--size", 32], "--size and --channels are for own pictures"),
        ([pictures, "--data-source", "mnist"], "names pictures already"),
        ([pictures, "--size", 31], "cannot be halved"),
        ([pictures, "--size", "48x63"], "--size 48x63: the width cannot be halved"),
        ([pictures, "--size", "48x"], "--size 48x: expected 4 to 1024 pixels, or HEIGHTxWIDTH"),
        ([tmp_path, "--size", 32], "holds no pictures"),
        ([pictures, "--size", 2000], "expected 4 to 1024 pixels"),
        ([pictures, "--size", 0], "expected 4 to 1024 pixels"),
        ([pictures, "--set", "data.channels=x"], "data.channels=x: expected 1 or 3"),
        (["nowhere", "--size", 32], "nowhere: no such folder or file of pictures"),
        (["nowhere"], "nowhere: no such folder or file of pictures, and no preset has this name"),
        (["folder:/nowhere"], "does not exist"),
    ):
        code, _, err = call(monkeypatch, capsys, "train", *words, "--out", out)
        assert code == 2 and said in err and not out.exists(), (words, err)
        assert "settings to keep" not in err


def test_the_settings_are_said_and_the_users_own_come_last(pictures):
    from diptych.cli.train import train_config

    changes = ("data.image_size=16", "model.ch=32", "train.batch_size=2")
    config = train_config(str(pictures), Path("no run"), 7, None, 5, changes, False)
    assert config.data.image_size == 16 and config.model.ch == 32 and config.seed == 5
    assert config.train.steps == 7 and config.train.batch_size == 2
    lines: list[str] = []
    choose_for(str(pictures), list(changes), None, lines.append)
    assert lines[0].startswith("folder:") and lines[-1].startswith(
        "settings to keep: diptych train"
    )
    assert "--set model.ch=32" in lines[-1]
    assert given_settings(["seed=3", "train.lr=1"]) == {"seed": 3, "train.lr": 1}


def test_a_resumed_run_keeps_its_settings(pictures, tmp_path):
    """Although more pictures would have been chosen for otherwise."""
    from diptych.cli.train import train_config
    from diptych.config.load import to_yaml

    first = train_config(str(pictures), tmp_path, None, None, None, ("data.image_size=16",), False)
    (tmp_path / "config.yaml").write_text(to_yaml(first))
    again = train_config(str(pictures), tmp_path, None, None, None, (), True)
    assert again == first
    said: list[str] = []
    chosen = choose_for(str(pictures), [], None, said.append, tmp_path)
    assert chosen.preset == str(tmp_path / "config.yaml") and not said
    assert list(chosen.settings) == ["data.source"]
    begins = choose_for(str(pictures), [], None, said.append, tmp_path / "empty")
    assert begins.settings["data.image_size"] == 36 and said  # nothing there to go on with


@pytest.mark.parametrize("begun", [False, True])
def test_python_and_the_command_choose_alike(pictures, tmp_path, monkeypatch, begun):
    from diptych.api import training
    from diptych.cli.train import train_config
    from diptych.config.load import to_yaml

    if begun:
        first = train_config(str(pictures), tmp_path, None, None, None, ("model.ch=32",), False)
        (tmp_path / "config.yaml").write_text(to_yaml(first))
    command = train_config(str(pictures), tmp_path, 7, None, None, ("train.lr=0.5",), begun)
    trained: list[object] = []
    monkeypatch.setattr(training, "run_training", lambda config, *_, **__: trained.append(config))
    monkeypatch.setattr(training, "Run", lambda *_: None)
    changes = {"train.steps": 7, "train.lr": 0.5}
    training.train(pictures, tmp_path, set=changes, resume=begun, progress=False)
    assert trained == [command] and command.model.ch == (32 if begun else 64)
