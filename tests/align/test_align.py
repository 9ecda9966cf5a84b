"""The full ladder, each backend in its process: sound backends pass, every kind of fault fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diptych
from diptych.align.faults.mutations import MUTATIONS, OF_ENGINES
from diptych.align.ladder.climb import ENGINE_RUNGS

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.jittor]

PACKAGE = Path(diptych.__file__).parent
PANELS_RUNGS = ("operators", "layers", "loss", "gradients", "update", "lockstep", "resume")
EXAMPLES = PACKAGE.parents[1] / "docs" / "examples"


def align(*words, package=PACKAGE, cwd=None):
    """`diptych align ...` in a process of its own, with a package at any place."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    return subprocess.run(
        [sys.executable, "-m", "diptych", "align", *map(str, words)],
        capture_output=True, text=True, env=environment, cwd=cwd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny(both_installed, tmp_path_factory):
    out = tmp_path_factory.mktemp("align") / "tiny"
    return align("tiny", "--json", "--mutate", "all", "--out", out), out


@pytest.fixture(scope="module")
def both_installed():
    from conftest import available

    if not (available("torch") and available("jittor")):
        pytest.skip("both panels are needed")


def test_tiny_climbs_the_ladder(tiny):
    done, out = tiny
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert json.loads((out / "align.json").read_text()) == result
    verdicts = {rung["rung"]: rung["verdict"] for rung in result["rungs"]}
    assert set(verdicts.values()) == {"pass"} and len(verdicts) == 13
    for rung in result["rungs"]:
        if rung["gate"] != "exact":
            assert rung["distance"]["torch"] > 0 and rung["distance"]["jittor"] > 0
            assert rung["margin"] > 1
    assert "all 13 rungs pass" in done.stderr.splitlines()[-1]


def test_planted_faults_fail_at_their_rung_and_not_before(tiny):
    mutants = json.loads(tiny[0].stdout)["mutations"]
    assert len(mutants) >= 90
    for mutant in mutants:
        assert mutant["caught_by"] == mutant["rung"], mutant


def test_an_engine_climbs_with_a_panel_as_its_measure(both_installed):
    """Sound, it passes; each fault in its graph fails where it must."""
    pytest.importorskip("onnxruntime")
    small = ["data.image_size=8", "model.ch=8", "model.norm_groups=4", "model.ch_mult=[1,2]",
             "model.num_res_blocks=1", "model.attn_resolutions=[4]"]  # fmt: skip
    changes = [word for change in small for word in ("--set", change)]
    done = align("tiny", "--backends", "torch,onnx", "--batch", 2, *changes, "--mutate", "all",
                 "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [rung["rung"] for rung in result["rungs"]] == list(ENGINE_RUNGS)
    assert {m["name"] for m in result["mutations"]} == set(OF_ENGINES)
    assert all(m["caught_by"] == m["rung"] for m in result["mutations"])


def test_a_panels_faults_are_caught_in_the_other_panel_too(both_installed):
    """The host's faults are the same code in both; a few of them stand for all."""
    planted = {m.name: m.rung for m in MUTATIONS.values() if m.rung in PANELS_RUNGS}
    planted |= {"jpeg": "metric", "resize": "metric", "clip_range": "solver"}
    done = align("tiny", "--mutate", ",".join(planted), "--into", "torch", "--json", "--quiet")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)["mutations"]
    assert {m["panel"] for m in found} == {"torch"}
    assert {m["name"]: m["caught_by"] for m in found} == planted


def test_a_gradient_that_is_zero_names_its_weight(tiny):
    found = {m["name"]: m["tensor"] for m in json.loads(tiny[0].stdout)["mutations"]}
    assert found["gradient_zeroed"] == "mid.block_1.conv2.weight"
    assert found["moments_forgotten"].startswith("restored/adam_m/")


def test_a_wide_network_climbs_too(both_installed):
    """2.4 million gradients: PyTorch's own norm of them was off by 4e-5, a false alarm."""
    rungs = ["--rungs", "update,lockstep", "--steps", "3"]
    done = align("tiny", "--set", "model.ch=128", *rungs, "--json", "--quiet")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_noise_of_the_device_is_no_bar(both_installed):
    rungs = ["--rungs", "data,loss,gradients", "--json"]
    done = align("tiny", "--set", "train.noise=device", *rungs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "only their statistics are checked" in done.stderr


def test_a_network_with_classes_climbs_too(both_installed):
    changes = ["model.num_classes=10", "diffusion.objective=v", "diffusion.zero_terminal_snr=true"]
    words = [word for change in changes for word in ("--set", change)]
    faults = ["label_shifted", "guidance_shifted"]
    rungs = ["--rungs", "data,layers,loss,solver", "--mutate", ",".join(faults)]
    done = align("tiny", *words, *rungs, "--json", "--quiet")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [rung["verdict"] for rung in result["rungs"]] == ["pass"] * 4
    caught = {m["name"]: m["caught_by"] for m in result["mutations"]}
    assert caught == dict(zip(faults, ["loss", "solver"], strict=True))


def test_bfloat16_is_bounded_by_its_own_floor_and_its_faults_are_caught(both_installed):
    """PyTorch alone has it; Jittor and the reference, rounded likewise, are its measure."""
    faults = {"half_precision_time": "loss", "alpha_squared": "loss", "keyed_slice_ignored": "data"}
    rungs = ["--rungs", "data,loss", "--mutate", ",".join(faults)]
    done = align("tiny", "--precision", "bf16", *rungs, "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "jittor computes in float32 alone and is only a measure" in done.stderr
    result = json.loads(done.stdout)
    assert result["backends"] == ["torch"] and result["precision"] == "bf16"
    assert result["environment"]["torch"]["precision"] == "bf16"
    assert {m["name"]: m["caught_by"] for m in result["mutations"]} == faults
    loss = result["rungs"][1]
    assert 1e-5 < loss["floor"] < 1e-2, "a floor of float32 would not let bfloat16 pass"


def test_the_page_holds_every_rung(tiny):
    page = (tiny[1] / "index.html").read_text()
    for rung in ("config", "layers", "lockstep", "solver", "metric"):
        assert f'id="{rung}"' in page
    assert page.count("<figure>") == 4 and "swapped_norms" in page
    assert page.count('<div class="gallery') >= 4 and "static" in page


# Faults that are in no table: (panel's file, what stands there, what is put there, rung, layer).
# Time added twice is first seen at 64 channels: with one channel in a group a norm undoes a shift.
OWN = {
    "torch, attention without its residual": (
        "torch/unet.py", "return add(x, self.proj_out(", "return add(0 * x, self.proj_out(",
        "layers", "down.1.attn.0",
    ),
    "jittor, time added twice": (
        "jittor/unet.py", "h = self.norm2(h, self.temb_proj(temb))",
        "h = self.norm2(h, 2 * self.temb_proj(temb))", "layers", "down.1.block.0",
    ),
    "torch, dropout's scale": (
        "torch/layers.py", "(1 / (1 - rate))", "(1 - rate)", "operators", "dropout/y",
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
    done = align("tiny", "--rungs", "operators,layers,update,metric", "--quiet", package=copy)
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
