"""Bad pictures are found before training, or left out and counted; odd files never hang."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.cli import main
from diptych.config.load import load_config
from diptych.data import load_configured, load_dataset, scan
from diptych.data.dataset import Dataset, usable
from diptych.data.decoded import Decoded
from diptych.errors import UserError
from diptych.evaluation.images import open_images
from diptych.files import read_json


def configured(root: Path, **data: Any) -> Dataset:
    changes = {"source": f"folder:{root}", "image_size": 16, "channels": 3, **data}
    config = load_config("tiny", [f"data.{key}={value}" for key, value in changes.items()])
    return load_configured(config.data)


@pytest.fixture(name="root")
def folder_of_pictures(bare: Path) -> Path:
    return photos.put_folder(bare, 12)


def spoil(root: Path) -> Path:
    """Damage in the middle of a PNG, which neither its beginning nor its end shows."""
    path = sorted(root.rglob("*.PNG"))[-1]
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    return path


def test_damage_is_found_at_the_start_and_both_ways_out_are_named(root: Path) -> None:
    path = spoil(root)
    with pytest.raises(UserError, match="cut short or damaged") as error:
        configured(root)
    said = str(error.value)
    assert said.startswith(f"{path}: ") and "--skip-bad" in said and "diptych data verify" in said


def test_skip_bad_leaves_them_out_and_counts_them(root: Path, capsys: Any) -> None:
    path = spoil(root)
    found = configured(root, skip_bad="true")
    assert len(found.images) == 11 and found.left_out == {"cannot be used": 1}
    assert found.labels is not None and len(found.labels) == 11
    said = capsys.readouterr().err
    assert "1 of 12 pictures cannot be used and are left out" in said and str(path) in said
    path.unlink()
    assert configured(root).sha256 == found.sha256, "the identity is of the pictures that are used"


def test_of_many_pictures_beginning_and_end_are_looked_at(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "WHOLE", 1000)
    decoded: list[int] = []
    whole = Decoded.one
    monkeypatch.setattr(Decoded, "one", lambda self, k: decoded.append(k) or whole(self, k))
    assert len(configured(root).images) == 12
    webp = sum(path.suffix == ".webp" for path in root.rglob("*.*"))
    assert len(decoded) == webp == 3, "JPEG and PNG are known by their ends"
    middle = spoil(root)
    assert len(configured(root).images) == 12  # the quick look does not see it; the step names it
    with pytest.raises(UserError, match=r"damaged.*--skip-bad"):
        configured(root).images[:]
    assert configured(root, skip_bad="true").left_out == {"cannot be used": 1}
    middle.write_bytes(middle.read_bytes()[:-100])
    with pytest.raises(UserError, match="cut short or damaged"):
        configured(root)


def test_what_was_looked_over_is_remembered_until_a_file_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(root)
    with monkeypatch.context() as patch:
        patch.setattr(scan, "_look_over", lambda *_: pytest.fail("looked over again"))
        configured(root)
    path = spoil(root)
    os.utime(path, ns=(1, 1))
    with pytest.raises(UserError, match="damaged"):
        configured(root)


def test_a_cache_that_cannot_be_written_only_costs_time(
    root: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "file"))
    assert len(configured(root).images) == 12


def test_training_with_skip_bad_records_what_was_left_out(
    root: Path, bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    spoil(root)
    (root / "notes.txt").touch()
    base = ["diptych", "train", "tiny", "--out", "run", "--steps", "1", "--quiet",
            "--set", f"data.source={root}", "--set", "data.image_size=16", "--set",
            "model.ch_mult=[1, 2]", "--set", "train.batch_size=2"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", base)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and not Path("run/checkpoints").exists()
    assert "--skip-bad" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*base, "--skip-bad", "--overwrite"])
    main()
    facts = read_json(Path("run/environment.json"))
    assert facts["dataset_left_out"] == {"of another kind": 1, "cannot be used": 1}
    assert facts["dataset_images"] == 11


def odd_files(root: Path) -> None:
    """Names and files that are no pictures, though they are called so."""
    os.mkfifo(root / "pipe.png")
    held = socket.socket(socket.AF_UNIX)
    os.chdir(root)
    held.bind("socket.png")
    held.close()
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "again").symlink_to(root)
    (root / ".hidden.png").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / "notes.txt").touch()


def test_odd_files_are_left_out_and_counted(root: Path, capsys: Any) -> None:
    odd_files(root)
    counts = {"broken link": 2, "folder met before": 1, "hidden": 2, "no regular file": 3,
              "of another kind": 1}  # fmt: skip
    data = load_dataset(f"folder:{root}", image_size=16)
    assert data.left_out == counts and len(data.images[:]) == 12
    assert open_images(root).left_out == counts and len(list(open_images(root).stream())) == 12
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "12 pictures; left out: broken links (2), " in said


@pytest.mark.parametrize("name", ["pipe.png", "socket.png", "loop.png", "zero.png"])
def test_an_odd_file_that_is_named_is_refused(root: Path, name: str) -> None:
    odd_files(root)
    for source in (f"folder:{root / name}", str(root / name), f"npz:{root / name}"):
        with pytest.raises(UserError):
            load_dataset(source, image_size=16)
        with pytest.raises(UserError):
            open_images(source)


def test_a_picture_that_became_a_pipe_is_refused_and_not_waited_for(root: Path) -> None:
    images = load_dataset(f"folder:{root}", image_size=16).images
    path = root / images.items.names[0]  # type: ignore[union-attr]
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match="is a FIFO; expected a picture"):
        images[0]


def test_names_that_are_not_utf_8(bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    folder = os.fsencode(bare) + b"/run\xe9"
    os.mkdir(folder)
    picture = photos.encoded(Image.new("RGB", (16, 16), (1, 2, 3)), "PNG")
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(picture)
    root = os.fsdecode(folder)
    data = load_dataset(root, image_size=16)
    assert len(usable(data).images[:]) == 1 and data.sha256
    assert open_images(root).count == 1
    for words in (["info", root], ["verify", root, "--json"], ["verify", root],
                  ["preview", root, "--out", str(bare / "p.png")],
                  ["prepare", root, "--out", f"{root}.npy", "--quiet"],
                  ["verify", f"packed:{root}.npy"]):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["diptych", "data", *words])
        main()
    with open(folder + b"/bad\xe9.png", "wb") as file:
        file.write(b"x")
    monkeypatch.setattr(sys, "argv", ["diptych", "data", "verify", root])
    with pytest.raises(SystemExit):
        main()
    assert "bad\\udce9.png: is not a JPEG" in capsys.readouterr().out


def test_verify_and_preview_go_on_past_bad_pictures(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    first = sorted(root.rglob("*.*"))[0]
    first.write_bytes(b"")
    spoil(root)
    monkeypatch.setattr(sys, "argv", ["diptych", "data", "verify", str(root)])
    with pytest.raises(SystemExit) as left:
        main()
    out, err = capsys.readouterr()
    assert left.value.code == 2 and out.count("\n") == 2 and str(first) in out
    assert "2 of 12 pictures cannot be used" in err
    monkeypatch.setattr(
        sys, "argv", ["diptych", "data", "preview", str(root), "--size", "16", "--out", "p.png"]
    )
    main()
    out, err = capsys.readouterr()
    assert "10 images, 2 left out" in out and err.count("left out: ") == 2
    assert Path("p.png").is_file()
