"""The arithmetic that was asked for is the one that is used, recorded, or refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import panel_jobs
import precision_jobs
from diptych.align.reference.network import Conv2d, Linear, _to_bits, attention, round_products
from diptych.errors import UserError


@pytest.fixture
def torch_panel(panels):
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    return panels["torch"]


def test_pytorch_s_settings_are_those_asked_for(torch_panel):
    """Whatever was set before, and also while a network is called."""
    for precision in ("fp32", "bf16"):
        found = torch_panel.call(precision_jobs.settings, precision)
        assert found["described"] == [precision, True]
        for moment in ("loaded", "called"):
            assert found[moment] == {
                "matmul": "highest", "cudnn_tf32": False, "benchmark": False, "deterministic": True,
                "autocast": precision == "bf16" and moment == "called",
            }  # fmt: skip


def test_features_are_of_float32_whatever_a_sampler_uses(torch_panel):
    found = torch_panel.call(precision_jobs.features_after_others)
    assert found == {"features": ("highest", False), "products": ("highest", False)}


def test_dropout_keeps_the_type_of_its_input(torch_panel):
    """And in bfloat16 the mean: 1 / 0.9 itself is not rounded, only products are."""
    found, kept, kind = torch_panel.call(precision_jobs.dropped)
    assert kind == "torch.bfloat16"
    for got, rounded, truth in zip(found[:2], found[2:], kept, strict=True):
        assert np.abs(got - truth).max() < 1e-6
        assert np.abs(rounded - truth).max() < 0.01 * np.abs(truth).max()
        assert abs(np.abs(rounded).sum() / np.abs(truth).sum() - 1) < 3e-4


def test_jittor_computes_on_one_device_in_a_process(panels):
    if "jittor" not in panels:
        pytest.skip("jittor is not installed")
    said = panels["jittor"].call(precision_jobs.second_device)
    assert said == (
        "device 'cpu': Jittor computes on one device in a process, here on 'cuda'; use a process "
        "of its own"
    )


def test_bf16_is_of_the_network_alone(torch_panel):
    """Inputs, loss, gradients and state are float32; the network's own products are not."""
    exact, rounded = (
        torch_panel.call(precision_jobs.training, panel_jobs.small(f"train.precision={p}"))
        for p in ("fp32", "bf16")
    )
    assert rounded["inside"] == ["torch.bfloat16"] and exact["inside"] == ["torch.float32"]
    for found in (exact, rounded):
        assert found["outside"] == ["float32"]
    apart = abs(rounded["loss"] - exact["loss"]) / exact["loss"]
    assert 1e-6 < apart < 1e-2


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("torch", "tf32", "needs an NVIDIA GPU, Ampere or later, not 'cpu'"),
        ("jittor", "tf32", "the Jittor panel computes in float32 alone"),
        ("jittor", "bf16", "the Jittor panel computes in float32 alone"),
        ("torch", "bf17", "'bf17' is not known, did you mean 'bf16'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(panels, name, precision, said):
    if name not in panels:
        pytest.skip(f"{name} is not installed")
    with pytest.raises(UserError) as refused:
        panels[name].call(precision_jobs.load, name, precision)
    assert all(part in str(refused.value) for part in said.split(", "))


def test_samples_record_it_and_are_resumed_with_it(torch_panel, tmp_path):
    out = tmp_path / "samples"
    config = panel_jobs.small()
    torch_panel.call(precision_jobs.sample, config, out, "bf16", "keyed")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["precision"] == manifest["environment"]["precision"] == "bf16"
    assert manifest["noise"] == "keyed" and manifest["environment"]["deterministic"] is False
    for changed in (("fp32", "keyed"), ("bf16", "host")):
        with pytest.raises(UserError, match=r"was begun with (precision=bf16|noise=keyed), not"):
            torch_panel.call(precision_jobs.sample, config, out, *changed)


def test_a_manifest_of_before_means_host_noise_in_float32(torch_panel, tmp_path):
    out = tmp_path / "samples"
    config = panel_jobs.small()
    torch_panel.call(precision_jobs.sample, config, out, "fp32", "host")
    manifest = json.loads((out / "manifest.json").read_text())
    before = {k: v for k, v in manifest.items() if k not in ("noise", "precision")}
    (out / "manifest.json").write_text(json.dumps(before))
    (out / "00001.png").unlink()
    torch_panel.call(precision_jobs.sample, config, out, "fp32", "host")
    assert (out / "00001.png").exists()


# The reference's own rounding, the measure of a lower precision


def test_the_reference_rounds_as_bfloat16_does():
    x = torch.randn(10_000, dtype=torch.float64) * 2.0 ** torch.randint(-20, 20, (10_000,))
    x = torch.cat([x, torch.tensor([0.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8], dtype=torch.float64)])
    # By way of float32 a value could be rounded twice.
    x = x.float().double()
    assert torch.equal(_to_bits(x, 7), x.to(torch.bfloat16).double())


def test_the_reference_s_products_in_bf16_are_those_of_pytorch_s_autocast():
    """Value and gradients of each product, up to bfloat16's own spacing."""
    torch.manual_seed(0)
    conv, dense = Conv2d(32, 32, 3), Linear(32, 64)
    for p in (*conv.parameters(), *dense.parameters()):
        torch.nn.init.normal_(p, std=0.1)
    picture = [torch.randn(2, 32, 6, 6, dtype=torch.float64) for _ in range(3)]
    row = torch.randn(4, 32, dtype=torch.float64)
    for f, given, parameters in (
        (conv, picture[:1], list(conv.parameters())),
        (dense, [row], list(dense.parameters())),
        (attention, picture, []),
    ):
        exact, lower = (_evaluate(f, given, parameters, p) for p in ("fp32", "bf16"))
        for a, b in zip(exact, lower, strict=True):
            apart = float((a - b).abs().max() / a.abs().max())
            assert 2.0**-14 < apart < 2.0**-5
            if f is not attention:
                assert torch.equal(b, _to_bits(b, 7))


def _evaluate(f, given, parameters, precision):
    round_products(precision)
    try:
        inputs = [x.clone().requires_grad_() for x in given]
        y = f(*inputs)
        gradients = torch.autograd.grad(y.sin().sum(), [*inputs, *parameters])
        return [y.detach(), *gradients]
    finally:
        round_products("fp32")


def test_the_reference_in_float32_rounds_nothing():
    x = torch.randn(3, 5, dtype=torch.float64)
    dense = Linear(5, 4)
    torch.nn.init.normal_(dense.weight)
    assert torch.equal(dense(x), x @ dense.weight.T + dense.bias)
    assert np.isfinite(dense(x).detach().numpy()).all()
