"""The full ladder, each backend in its process: sound backends pass, every kind of fault fails."""

from __future__ import annotations

import json

import pytest

from commands import align
from diptych.align.faults import host
from diptych.align.faults.mutations import MUTATIONS, OF_ENGINES
from diptych.align.ladder.climb import ENGINE_RUNGS

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.jittor]

PANELS_RUNGS = ("operators", "layers", "loss", "gradients", "update", "lockstep", "resume")
# Where a fault is seen does not depend on the size: the smallest network with each of its parts.
SMALL = ["data.image_size=8", "model.ch=8", "model.norm_groups=4", "model.ch_mult=[1,2]",
         "model.num_res_blocks=1", "model.attn_resolutions=[4]"]  # fmt: skip
SMALLEST = ["tiny", "--batch", "2", *(word for change in SMALL for word in ("--set", change))]


@pytest.fixture(scope="module")
def small(both_installed, tmp_path_factory):
    """A small network with every fault planted into Jittor."""
    out = tmp_path_factory.mktemp("align") / "small"
    return align(*SMALLEST, "--json", "--mutate", "all", "--out", out), out


def test_a_small_network_climbs_the_ladder(small):
    done, out = small
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


def test_planted_faults_fail_at_their_rung_and_not_before(small):
    mutants = json.loads(small[0].stdout)["mutations"]
    assert {mutant["name"] for mutant in mutants} == set(MUTATIONS) and len(mutants) >= 90
    for mutant in mutants:
        assert mutant["caught_by"] == mutant["rung"], mutant


def test_an_engine_climbs_with_a_panel_as_its_measure(both_installed):
    """Sound, it passes; each fault in its graph fails where it must."""
    pytest.importorskip("onnxruntime")
    done = align(*SMALLEST, "--backends", "torch,onnx", "--mutate", "all", "--json")
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [rung["rung"] for rung in result["rungs"]] == list(ENGINE_RUNGS)
    assert {m["name"] for m in result["mutations"]} == set(OF_ENGINES)
    assert all(m["caught_by"] == m["rung"] for m in result["mutations"])


def test_tiny_climbs_and_a_panels_faults_are_caught_in_the_other_panel_too(both_installed):
    """The host's faults are the same code in both; a few of them stand for all."""
    hosts = {name for name, *_ in host.ROWS}
    planted = {m.name: m.rung for m in MUTATIONS.values()
               if m.rung in PANELS_RUNGS and m.name not in hosts}  # fmt: skip
    planted |= {"warm_up_ignored": "update", "jpeg": "metric", "clip_range": "solver"}
    sizes = ["--batch", "2", "--steps", "5"]
    done = align("tiny", *sizes, "--mutate", ",".join(planted), "--into", "torch", "--json",
                 "--quiet")  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    assert [rung["verdict"] for rung in result["rungs"]] == ["pass"] * 13
    found = result["mutations"]
    assert {m["panel"] for m in found} == {"torch"}
    assert {m["name"]: m["caught_by"] for m in found} == planted


def test_a_gradient_that_is_zero_names_its_weight(small):
    found = {m["name"]: m["tensor"] for m in json.loads(small[0].stdout)["mutations"]}
    assert found["gradient_zeroed"] == "mid.block_1.conv2.weight"
    assert found["moments_forgotten"].startswith("restored/adam_m/")


def test_a_wide_network_climbs_too(both_installed):
    """2.4 million gradients: PyTorch's own norm of them was off by 4e-5, a false alarm."""
    rungs = ["--rungs", "update,lockstep", "--steps", "2", "--batch", "2"]
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


def test_the_page_holds_every_rung(small):
    page = (small[1] / "index.html").read_text()
    for rung in ("config", "layers", "lockstep", "solver", "metric"):
        assert f'id="{rung}"' in page
    assert page.count("<figure>") == 4 and "swapped_norms" in page
    assert page.count('<div class="gallery') >= 4 and "static" in page
