"""Both backends train on real photographs from every colour source, and sample from the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import data_jobs
import photos
from conftest import Panel
from diptych.config.load import Config, validate
from diptych.data import load_dataset
from diptych.data.packed.job import Packing
from diptych.data.packed.write import prepare
from diptych.data.preprocess import LAMBDA
from diptych.weights.formats.official import from_official

NETWORK = {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}


def config(source: str, **data: Any) -> Config:
    """Two steps of four 16x16 images; a short schedule, so that the grid at the end is quick."""
    tree = {
        "data": {"source": source, "image_size": 16, "channels": 3, "random_flip": True, **data},
        "model": NETWORK,
        "diffusion": {"timesteps": 4, "beta_end": 0.5},
        "train": {"batch_size": 4, "steps": 2},
    }
    return validate(tree, "the test's config")


OFFICIAL = {
    "data": {"dataset": "CIFAR10", "image_size": 32, "channels": 3, "logit_transform": False,
             "uniform_dequantization": True, "gaussian_dequantization": False,
             "random_flip": True, "rescaled": True, "num_workers": 4},
    "model": {"type": "simple", "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1],
              "num_res_blocks": 1, "attn_resolutions": [16], "dropout": 0.0,
              "var_type": "fixedlarge", "ema_rate": 0.9999, "ema": True,
              "resamp_with_conv": True},
    "diffusion": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.5,
                  "num_diffusion_timesteps": 4},
    "training": {"batch_size": 20, "n_epochs": 1, "n_iters": 5000000, "snapshot_freq": 5000,
                 "validation_freq": 2000},
    "sampling": {"batch_size": 64, "last_only": True},
    "optim": {"weight_decay": 0.0, "optimizer": "Adam", "lr": 0.0002, "beta1": 0.9,
              "amsgrad": False, "eps": 1e-8, "grad_clip": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every layout below one folder, as --data takes it."""
    root = tmp_path_factory.mktemp("colour")
    photos.put_cifar10(root)
    photos.put_celeba(root, 10)
    photos.put_lsun(root, "church_outdoor", 6)
    photos.put_ffhq(root, 10, size=16)
    photos.put_folder(root, 6)
    data = load_dataset(f"folder:{root / 'pictures'}", image_size=16)
    prepare(Packing(data, root / "packed.npy", "center", progress=False))
    pixels = photos.pixels(photos.crops(6, 16, 16)).transpose(0, 2, 3, 1)
    np.savez(root / "own.npz", images=pixels)
    return root


SOURCES = {
    "cifar10": ("cifar10", {}),
    "celeba": ("celeba", {"dequantization": "gaussian"}),
    "lsun": ("lsun_church_outdoor", {"rescaled": False}),
    "ffhq": ("ffhq", {"rescaled": False, "logit_transform": True, "dequantization": "uniform"}),
    "folder": ("folder:{}/pictures", {"crop": "adm"}),
    "packed": ("packed:{}/packed.npy", {"dequantization": "uniform"}),
    "npz": ("npz:{}/own.npz", {}),
}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", SOURCES)
def test_both_panels_train_on_the_same_pixels(
    both: tuple[Panel, Panel], root: Path, tmp_path: Path, kind: str
) -> None:
    source, data = SOURCES[kind]
    chosen = config(source.format(root), **data)
    where = None if ":" in source else root
    for panel in both:
        panel.call(data_jobs.train_on, panel.name, chosen, tmp_path / panel.name, where)
    one, other = (rows(tmp_path / panel.name) for panel in both)
    assert [row["step"] for row in one] == [row["step"] for row in other] == [1, 2]
    for a, b in zip(one, other, strict=True):
        assert np.isfinite(a["loss"]) and a["loss"] == pytest.approx(b["loss"], rel=1e-4)
    facts = [json.loads((tmp_path / p.name / "environment.json").read_text()) for p in both]
    assert facts[0]["dataset_sha256"] == facts[1]["dataset_sha256"]
    with Image.open(tmp_path / "torch/grids/step-00000002.png") as grid:
        assert grid.mode == "RGB" and np.asarray(grid).std() > 10


def test_both_panels_train_from_the_official_config(
    both: tuple[Panel, Panel], root: Path, tmp_path: Path
) -> None:
    chosen = from_official(OFFICIAL, "cifar10.yml")
    assert chosen.data.dequantization == "uniform"
    for panel in both:
        panel.call(data_jobs.train_on, panel.name, chosen, tmp_path / panel.name, root)
    one, other = (rows(tmp_path / panel.name) for panel in both)
    assert len(one) == len(other) == 2  # an epoch of 40 images
    for a, b in zip(one, other, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_logit_model_draws_the_right_pixels(panel: Panel, tmp_path: Path) -> None:
    """Drawn images go through the sigmoid, in arrays and in files."""
    chosen = config("ffhq", rescaled=False, logit_transform=True)
    floats, pixels = panel.call(data_jobs.draw_both, panel.name, chosen, tmp_path / "out")
    sigmoid = 1 / (1 + np.exp(-floats.astype(np.float64)))
    expected = np.rint(255 * (sigmoid - LAMBDA) / (1 - 2 * LAMBDA)).transpose(0, 2, 3, 1)
    assert np.array_equal(pixels, expected)
    plain = np.rint((np.clip(floats, -1, 1) + 1) * 127.5).transpose(0, 2, 3, 1)
    assert (pixels != plain).mean() > 0.5  # the usual way back would be seen
    for k in range(3):
        with Image.open(tmp_path / "out" / f"{k:05d}.png") as picture:
            assert np.array_equal(np.asarray(picture), expected[k])
