"""`diptych data`: its commands on real pictures, and one line for each refusal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import photos
from data_files import bare_machine  # noqa: F401  (a fixture)
from diptych.cli import main


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Diptych = Callable[..., Done]


@pytest.fixture(name="root")
def folder_of_pictures(bare: Path) -> Path:
    return photos.put_folder(bare, 10)


@pytest.fixture(name="diptych")
def command_line(root: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Diptych:
    """`diptych data ...` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["diptych", "data", *map(str, arguments)])
        monkeypatch.chdir(root.parent)
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as left:
            code = int(left.code or 0)
        return Done(code, *capfd.readouterr())

    return run


def test_the_commands(root: Path, diptych: Diptych) -> None:
    base = root.parent
    photos.put_celeba(base / "d", 10)
    found = diptych("list", "--data", base / "d", "--json")
    rows = {row["source"]: row["where"] for row in json.loads(found.stdout)["sources"]}
    assert "img_align_celeba" in rows["celeba"] and rows["ffhq"] == "" == rows["cifar10"]
    asked = ("prepare", "celeba", "--data", base / "d", "--size", 32, "--out", "c.npy")
    made = diptych(*asked, "--json")
    facts = json.loads(made.stdout)
    assert made.returncode == 0 and "celeba" in made.stderr, made.stderr
    assert (facts["shape"], facts["crop"]) == ([8, 32, 32, 3], "celeba")
    again = diptych(*asked, "--quiet")
    assert (
        again.returncode == 0 and again.stderr == "" and "data.source=packed:c.npy" in again.stdout
    )
    info = json.loads(diptych("info", "packed:c.npy", "--json").stdout)
    assert (info["images"], info["height"], info["sha256"]) == (8, 32, facts["sha256"])
    seen = diptych("verify", "packed:c.npy", "--json")
    live = diptych("verify", "celeba", "--data", base / "d", "--size", 32, "--json")
    sums = [json.loads(each.stdout)["pixels_sha256"] for each in (seen, live)]
    assert sums == [facts["sha256"]] * 2
    held = bytearray((base / "c.npy").read_bytes())
    held[-5] ^= 1
    (base / "c.npy").write_bytes(held)
    broken = diptych("verify", "packed:c.npy")
    assert broken.returncode == 2 and "it was changed or damaged" in broken.stderr
    for size, (height, width) in (("16", (16, 16)), ("16x24", (16, 24))):
        shown = diptych("preview", f"folder:{root}", "--size", size, "--out", "p.png")
        assert shown.returncode == 0
        with Image.open(base / "p.png") as grid:
            assert grid.size == (4 * (width + 2) + 2, 3 * (height + 2) + 2)


def test_bad_input_at_the_command_line(root: Path, diptych: Diptych) -> None:
    (root / "left/bad.jpg").write_bytes(b"")
    np.savez(root.parent / "a.npz", images=np.zeros((2, 16, 16, 3), np.uint8))
    cases = [
        (("verify", f"folder:{root}", "--size", 16), "1 of 11 pictures cannot be used"),
        (("prepare", f"folder:{root}", "--out", "x.npy"), "--size 64"),
        (("prepare", f"folder:{root}", "--size", 16, "--out", "x.npy"), "bad.jpg: is empty"),
        (("info", f"folder:{root}", "--size", 2), "--size 2: expected 4 to 1024"),
        (("info", f"folder:{root}", "--size", "24x"), "--size 24x: expected 4 to 1024"),
        (("info", "mnist-10k", "--size", "14x28"), "14x28 cannot be made from 28x28 images"),
        (("info", "npz:a.npz", "--size", 10), "blocks of pixels; give one of 4, 8, 16\n"),
        (("info", "mnist-10k", "--crop", "adm"), "is not cropped; leave the crop 'adm' out"),
        (("prepar",), "did you mean 'prepare'"),
        (("info", "npz:a.npz", "--channels", 1), "have 3 channels, and --channels is for pictures"),
        (("verify", f"folder:{root}", "--channels", 2), "decoded to 1 or 3 channels, not 2"),
        (("list", "--data", "nowhere"), "--data nowhere: no such folder"),
        (
            ("preview", "npz:a.npz", "--out", "a.jpg"),
            "a.jpg: this writes a .png file",
        ),
        (
            ("prepare", "npz:a.npz", "--out", "a.png"),
            "a.png: this writes a .npy file",
        ),
        (
            ("info", "packed:a.npz"),
            "or read it as a plain array: npz:a.npz",
        ),
    ]
    for arguments, fault in cases:
        done = diptych(*arguments, "--quiet" if arguments[0] == "prepare" else "--json")
        assert done.returncode == 2, done.stderr
        assert fault in done.stderr and "data." not in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
    assert not (root.parent / "x.npy").exists()
