"""A disk that fails while `sample`, `encode` or `sweep` writes: one line, and nothing half-written.

Damaged images of a folder that is resumed are named and drawn again.
"""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import output_jobs
import panel_jobs
from commands import shell
from conftest import Panel
from waiting import until

pytestmark = pytest.mark.torch


@pytest.fixture
def torch(panels: dict[str, Panel]) -> Panel:
    return panels["torch"]


@pytest.mark.slow
@pytest.mark.parametrize("code, stride", [(errno.ENOSPC, 1), (errno.EIO, 7)])
@pytest.mark.parametrize("way, least", [("sample", 30), ("encode", 40), ("sweep", 15)])
def test_each_call_to_the_disk_may_fail(
    torch: Panel, tmp_path: Path, way: str, least: int, code: int, stride: int
) -> None:
    """The folder goes on where it was, to the same bytes."""
    assert torch.call(output_jobs.each_call_fails, way, tmp_path, code, stride) >= least


def resume(folder: Path, damage: Any) -> tuple[dict[str, bytes], dict[str, bytes], str]:
    """Contents before and after a folder with damaged images was resumed, and what was said."""
    import contextlib
    import io

    model = panel_jobs.make("torch", panel_jobs.small())
    output_jobs.samples(model, folder)
    before = output_jobs.contents(folder)
    for name, content in damage.items():
        (folder / name).write_bytes(content)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        output_jobs.samples(model, folder)
    return before, output_jobs.contents(folder), said.getvalue()


def png(tmp_path: Path, shape: tuple[int, ...], mode: str | None = None) -> bytes:
    picture = Image.fromarray(np.zeros(shape, np.uint8))
    (picture.convert(mode) if mode else picture).save(tmp_path / "made.png")
    return (tmp_path / "made.png").read_bytes()


def test_damaged_images_are_named_and_drawn_again(torch: Panel, tmp_path: Path) -> None:
    whole = png(tmp_path, (14, 14))
    damage = {
        "junk": b"no picture", "empty": b"", "cut": whole[:40], "large": png(tmp_path, (15, 14)),
        "colour": png(tmp_path, (14, 14, 3)), "palette": png(tmp_path, (14, 14), "P"),
    }  # fmt: skip
    for kind, content in damage.items():
        before, after, said = torch.call(resume, tmp_path / kind, {"00001.png": content})
        assert after == before, kind
        assert said.count("\n") == 1 and "00001.png: no image of 14x14 with 1 channels" in said
    before, after, said = torch.call(resume, tmp_path / "fine", {})
    assert after == before and said == ""


@pytest.mark.slow
def test_two_commands_in_one_folder_are_one_and_a_refusal(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["sample", "zoo:mnist-torch", "--num", "64", "--steps", "500", "--out", out]
    command = [sys.executable, "-m", "diptych", *map(str, words), "--device", "cpu", "--quiet"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def begun() -> bool:
        assert first.poll() is None, "ended before it began"
        return (out / "manifest.json").exists()

    try:
        until(begun)
        first.send_signal(signal.SIGSTOP)  # it is at work for as long as the second one looks
        second = shell(*words, "--resume", "--device", "cpu")
        assert second.returncode == 2 and f"(process {first.pid}: diptych sample" in second.stderr
        assert "another process is at work in it" in second.stderr.splitlines()[-1]
    finally:
        first.kill()
        first.wait()
    words[words.index("500")] = "2"
    refused = shell(*words, "--resume", "--device", "cpu")  # by its settings, and not by a lock
    assert refused.returncode == 2 and "was begun with timesteps" in refused.stderr
    done = shell(*words, "--overwrite", "--device", "cpu", "--quiet")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["torch", pytest.param("jittor", marks=pytest.mark.jittor)])
def test_weights_that_overflow_are_refused_alike(panels: dict[str, Panel], name: str) -> None:
    """Clipped or not: a NaN is not cut to 1, and squares of a norm that overflow are no zeros.

    By a factor of 500 activations reach 1e19: no number is infinite but those squares.
    """
    for factor in (500, 1e3, 1e4, 1e7, 1e15, 1e30):
        for clip in (False, True):
            message = panels[name].call(overflow, name, factor, clip)
            assert "2 of 2 images are not finite (the first is number 0)" in message, factor
    assert panels[name].call(overflow, name, 100, True) == "drawn"


def overflow(name: str, factor: float, clip: bool) -> str:
    from diptych.backends import load as load_backend
    from diptych.errors import UserError
    from diptych.model import Model
    from diptych.network.parameters import initial_weights
    from diptych.network.plan import make_plan
    from diptych.weights.find import Source

    config = panel_jobs.small()
    weights = initial_weights(make_plan(config), 0)
    large = {key: value * np.float32(factor) for key, value in weights.items()}
    model = Model(Source(Path("x"), config, large, "raw"), load_backend(name, "cpu"))
    try:
        model.sample(2, "ddim", 3, clip=clip)
    except UserError as error:
        return str(error)
    return "drawn"
