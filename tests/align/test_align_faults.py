"""The ladder names what is wrong: in a copy of a panel, and in ports that users bring."""

from __future__ import annotations

import json
import shutil

import pytest

from commands import PACKAGE, align

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.jittor]

EXAMPLES = PACKAGE.parents[1] / "docs" / "examples"

# Faults that are in no table: (panel's file, what stands there, what is put there, rung, layer).
# Time added twice is first seen at 64 channels: with one channel in a group a norm undoes a shift.
OWN = {
    "torch, attention without its residual": (
        "torch/unet.py", "return add(x, self.branch(x))", "return add(0 * x, self.branch(x))",
        "layers", "down.1.attn.0",
    ),
    "jittor, time added twice": (
        "jittor/unet.py", "h = self.norm2(h, self.temb_proj(temb))",
        "h = self.norm2(h, 2 * self.temb_proj(temb))", "layers", "down.1.block.0",
    ),
    "torch, dropout's scale": (
        "torch/layers.py", "scale = 1 / (1 - rate)", "scale = 1 - rate", "operators", "dropout/y",
    ),
    "jittor, second moment": (
        "jittor/optim.py", "(1 - beta2**step) ** 0.5", "(1 - beta2**step)", "update", "p.a",
    ),
    "torch, the classifier's range": (
        "torch/classifier.py", "place(x * 2 - 1)", "place(x * 2 - 0.999)", "metric", "own/pool",
    ),
}  # fmt: skip


def faulty(folder, file, right, wrong):
    """A copy of the package with one place of a panel changed."""
    copy = folder / "src" / "diptych"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / "backends" / file).read_text()
    assert text.count(right) == 1
    (copy / "backends" / file).write_text(text.replace(right, wrong))
    return copy


@pytest.mark.parametrize("file, right, wrong, rung, name", OWN.values(), ids=OWN.keys())
def test_a_fault_in_a_copy_of_a_panel_is_named(
    both_installed, tmp_path, file, right, wrong, rung, name
):
    copy = faulty(tmp_path, file, right, wrong)
    earlier = {"layers": "operators,", "update": "operators,layers,"}.get(rung, "")
    done = align("tiny", "--rungs", earlier + rung, "--quiet", package=copy)
    assert done.returncode == 3, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert f"rung '{rung}'" in last and name in last and file.split("/")[0] in last


# Upsampling that takes the height for the width: on squares it is right.
TURNED = "jittor/kernels/pixels.py", "const int64 W = in0_shape3;", "const int64 W = in0_shape2;"
OBLONG = ["data.image_size=8x12", "model.attn_resolutions=[4]"]


def test_height_taken_for_width_is_caught(both_installed, tmp_path):
    """By one operator's case on any config, and by the layers where the images are no squares."""
    copy, names = faulty(tmp_path, *TURNED), ("upsample, no square/y", "up.1.upsample")
    changes = [word for change in OBLONG for word in ("--set", change)]
    for rung, name, square in (("operators", names[0], True), ("layers", names[1], False)):
        words = [] if square else changes
        done = align("tiny", "--rungs", rung, "--quiet", *words, package=copy)
        assert done.returncode == 3, done.stdout + done.stderr
        assert f"rung '{rung}'" in done.stdout and name in done.stdout.splitlines()[-1]
    done = align("tiny", "--rungs", "data,layers,loss,gradients", "--json", "--quiet", *changes)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert {rung["verdict"] for rung in json.loads(done.stdout)["rungs"]} == {"pass"}


@pytest.mark.parametrize("function, code", [("build", 3), ("build_fixed", 0)])
def test_the_worked_example(both_installed, function, code):
    done = align(
        "--subject", f"small_port:{function}", "--reference", "torch:tiny", "--names",
        "small_port.yaml", "--json", "--quiet", cwd=EXAMPLES,
    )  # fmt: skip
    assert done.returncode == code, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [rung["rung"] for rung in result["rungs"]] == ["weights", "layers", "loss", "gradients"]
    if code:
        assert result["first_failure"]["rung"] == "layers"
        assert result["first_failure"]["tensor"].endswith("down.0.downsample.conv")


def test_a_port_that_raises_gives_one_line(both_installed, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import torch\n\ndef build():\n    raise RuntimeError('no such layer')\n"
    )
    done = align("--subject", "broken:build", "--reference", "torch:tiny", "--quiet", cwd=tmp_path)
    assert done.returncode == 2
    assert "no such layer" in done.stderr and done.stderr.count("\n") == 1


JITTOR_PORT = """
import jittor
from diptych.network.plan import make_plan
from diptych.backends.jittor.unet import UNet

class Wrapped(jittor.Module):
    def __init__(self, config):
        self.net = UNet(make_plan(config))
    def execute(self, x, embedding):
        return self.net(FACTOR * x, embedding)

def build(config):
    return Wrapped(config)
"""


@pytest.mark.parametrize("factor, code", [("1", 0), ("1.001", 3)])
def test_a_port_in_jittor_with_renamed_parameters(both_installed, tmp_path, factor, code):
    (tmp_path / "jport.py").write_text(JITTOR_PORT.replace("FACTOR", factor))
    heads = ("temb", "conv_in", "down", "mid", "up", "norm_out", "conv_out")
    (tmp_path / "map.yaml").write_text("".join(f"{head}: net.{head}\n" for head in heads))
    words = ["--subject", "jport:build", "--reference", "torch:tiny", "--names", "map.yaml"]
    done = align(*words, "--quiet", cwd=tmp_path)
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "'free/conv_in' of port" in done.stdout.splitlines()[-1]
