"""Both backends compute the same numbers as each other and as the official network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import panel_jobs
from diptych.config.load import load_config
from diptych.training.batches import to_uint8

GOLDEN = Path(__file__).parents[1] / "golden" / "official.npz"
WIDE = [
    "data.image_size=32",
    "data.channels=3",
    "model.ch=64",
    "model.ch_mult=[1, 2, 2]",
    "model.num_res_blocks=2",
    "model.attn_resolutions=[16]",
    "model.dropout=0.1",
]
OFFICIAL = ["model.norm_groups=32", "diffusion.objective=eps"]
DIGITS = ["model.ch=32", "model.ch_mult=[1, 2, 2]", *OFFICIAL]
CONFIGS = {
    "tiny": load_config("tiny", OFFICIAL),
    "mnist": load_config("mnist", DIGITS),
    "wide": load_config("mnist", [*WIDE, *OFFICIAL]),
    "pooled": load_config("mnist", ["model.resamp_with_conv=false", *DIGITS]),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_panel_gives_the_official_networks_output(panel, name):
    """Against values that the official code computed from the same weights (golden/README)."""
    golden, config = np.load(GOLDEN), CONFIGS[name]
    x, t = panel_jobs.noise_images(config, 4), np.array([0, 1, 500, 999])
    ours = panel.call(panel_jobs.forward, panel.name, config, x, t, seed=3)
    assert np.abs(ours - golden[f"{name}.forward"]).max() < 1e-5


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_panel_draws_the_official_samples(panel, eta):
    """20 official DDIM steps from the same noise: at most one uint8 level apart."""
    golden, config = np.load(GOLDEN), CONFIGS["tiny"]
    drawn = panel.call(
        panel_jobs.draw_from_seed,
        panel.name,
        config,
        3,
        4,
        steps=20,
        eta=eta,
        seed=7,
        noise="host",
    )
    apart = np.abs(to_uint8(golden[f"tiny.ddim.{eta}"]).astype(int) - to_uint8(drawn))
    assert apart.max() <= 1


@pytest.mark.parametrize("name", CONFIGS)
def test_forward_of_the_panels_agrees(both, name):
    config = CONFIGS[name]
    x, t = panel_jobs.noise_images(config, 4), np.array([0, 17, 400, 999])
    torch, jittor = (p.call(panel_jobs.forward, p.name, config, x, t) for p in both)
    assert np.abs(torch - jittor).max() < 1e-5
    assert np.abs(torch).max() > 0.1  # not agreement upon nothing


@pytest.mark.parametrize("change", ["model.dropout=0.1", "train.loss=sum"])
def test_gradients_of_the_panels_agree(both, change):
    (loss_a, torch), (loss_b, jittor) = (
        p.call(panel_jobs.gradients, p.name, panel_jobs.small(change)) for p in both
    )
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    largest = max(np.abs(gradient).max() for gradient in torch.values())
    for name, gradient in torch.items():
        scale = np.abs(gradient).max()
        if scale > 1e-5 * largest:  # a bias before a norm: gradient zero, only rounding
            assert np.abs(gradient - jittor[name]).max() < 1e-3 * scale, name


@pytest.mark.slow
def test_loss_curves_of_50_steps_agree(both):
    """Dropout on: both panels must drop the same units."""
    config = panel_jobs.small("model.dropout=0.1", "train.batch_size=16")
    torch, jittor = (p.call(panel_jobs.losses, p.name, config, 50)["rows"] for p in both)
    apart = np.abs(torch - jittor) / np.abs(torch)
    assert apart[:, 0].max() < 1e-4
    assert torch[-10:, 0].mean() < 0.5 * torch[0, 0]  # and they learn


def test_another_mask_would_be_noticed(both):
    """The agreement above can fail: other dropout masks give another loss."""
    a = both[0].call(panel_jobs.losses, "torch", panel_jobs.small("model.dropout=0.1"), 2)["rows"]
    b = both[1].call(panel_jobs.losses, "jittor", panel_jobs.small("model.dropout=0.2"), 2)["rows"]
    assert np.abs(a - b)[:, 0].max() > 1e-4


def test_predicting_does_not_stop_learning(panel):
    """Jittor's `eval()` would stop every gradient for good."""
    plain = panel.call(panel_jobs.losses, panel.name, panel_jobs.small(), 6)
    mixed = panel.call(panel_jobs.losses, panel.name, panel_jobs.small(), 6, predict_between=True)
    assert np.array_equal(plain["rows"], mixed["rows"])


@pytest.mark.slow
def test_memory_is_flat_over_a_run(panel):
    found = panel.call(panel_jobs.live_work, panel.name, panel_jobs.small(), 120)
    megabytes = np.array([row[0] for row in found])
    assert megabytes[-20:].mean() - megabytes[40:60].mean() < 20
    live = [row[1] for row in found]
    assert max(live[40:]) <= max(live[20:40])


OFFICIAL_YML = """
data: {dataset: CIFAR10, image_size: 32, channels: 3, logit_transform: false,
  uniform_dequantization: false, gaussian_dequantization: false, random_flip: true,
  rescaled: true, num_workers: 4}
model: {type: simple, in_channels: 3, out_ch: 3, ch: 64, ch_mult: [1, 2, 2], num_res_blocks: 2,
  attn_resolutions: [16, ], dropout: 0.1, var_type: fixedlarge, ema_rate: 0.9999, ema: true,
  resamp_with_conv: true}
diffusion: {beta_schedule: linear, beta_start: 0.0001, beta_end: 0.02,
  num_diffusion_timesteps: 1000}
training: {batch_size: 128, n_epochs: 10000, n_iters: 5000000, snapshot_freq: 5000,
  validation_freq: 2000}
sampling: {batch_size: 64, last_only: true}
optim: {weight_decay: 0.000, optimizer: Adam, lr: 0.0002, beta1: 0.9, amsgrad: false,
  eps: 0.00000001, grad_clip: 1.0}
"""


def test_an_official_checkpoint_loads_as_it_is(panel, panels, tmp_path):
    """A .ckpt and an official .yml, no conversion: the official network's output."""
    config = CONFIGS["wide"]
    (tmp_path / "cifar10.yml").write_text(OFFICIAL_YML)
    panels["torch"].call(panel_jobs.save_official, config, 3, tmp_path / "ema.ckpt")
    x, t = panel_jobs.noise_images(config, 4), np.array([0, 1, 500, 999])
    ours = panel.call(
        panel_jobs.predict_file, panel.name, tmp_path / "ema.ckpt", tmp_path / "cifar10.yml", x, t
    )
    assert np.abs(ours - np.load(GOLDEN)["wide.forward"]).max() < 1e-5


def test_a_convolution_of_the_doubled_image_is_doubling_and_convolving(panel):
    """The PyTorch panel folds both into one transposed convolution."""
    draw = np.random.default_rng(0).standard_normal
    x, weight, bias = (draw(s).astype("f4") for s in ((2, 3, 5, 7), (4, 3, 3, 3), (4,)))
    at_once, apart = panel.call(panel_jobs.doubled, panel.name, x, weight, bias)
    assert at_once[0].shape == (2, 4, 10, 14)
    for a, b in zip(at_once, apart, strict=True):
        assert np.abs(a - b).max() < 3e-6 * np.abs(b).max()
