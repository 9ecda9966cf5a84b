"""Images that are no squares: the same numbers in both panels, and every verb in their shape."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import oblong_jobs
import panel_jobs
from diptych.config.load import load_config
from diptych.runs.reader import read_run

OBLONG = ["data.channels=3", "model.attn_resolutions=[4]", "train.noise=host"]
SIZES = {
    "wide": ["data.image_size=8x12"],
    "high": ["data.image_size=12x8", "model.dropout=0.1"],
    "pooled": ["data.image_size=8x12", "model.resamp_with_conv=false", "train.loss=sum"],
}


@pytest.mark.parametrize("name", SIZES)
def test_the_panels_and_the_reference_agree(both, name):
    """At the bounds that squares have; a reference in float64."""
    config = panel_jobs.small(*OBLONG, *SIZES[name])
    truth, loss, gradients = both[0].call(oblong_jobs.numbers, "reference", config)
    assert truth.shape[1:] == (3, *config.data.sides) and np.abs(truth).max() > 0.1
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for panel in both:
        found, its_loss, its_gradients = panel.call(oblong_jobs.numbers, panel.name, config)
        assert np.abs(found - truth).max() < 1e-5
        assert its_loss == pytest.approx(loss, rel=1e-5)
        for key, gradient in gradients.items():
            scale = np.abs(gradient).max()
            if scale > 1e-5 * largest:  # a bias before a norm: gradient zero, only rounding
                assert np.abs(gradient - its_gradients[key]).max() < 1e-3 * scale, key


def shape_of(path):
    with Image.open(path) as picture:
        return picture.size


def test_a_run_on_wide_pictures_from_start_to_report(panel, tmp_path):
    """Trained, resumed, drawn, encoded, interpolated and reported by the command line."""
    draws = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        pixels = draws.integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    panel.call(oblong_jobs.lived, panel.name, tmp_path / "pictures", tmp_path)
    run = read_run(tmp_path / "run")
    assert run.config.data.image_size == (8, 12) and run.config.data.shape == (3, 8, 12)
    assert load_config(str(tmp_path / "run" / "config.yaml")) == run.config
    grids = sorted((tmp_path / "run" / "grids").iterdir())
    assert len(grids) == 2
    width, height = shape_of(grids[-1])
    assert width / height == pytest.approx(12 / 8, rel=0.1)  # 8 by 8 images, and gaps
    images = sorted((tmp_path / "drawn").glob("0*.png"))
    assert [shape_of(path) for path in images] == [(12, 8)] * 3
    for name, count in (("between", 10), ("begun", 2), ("encoded", 2)):
        images = sorted((tmp_path / name).glob("0*.png"))
        assert [shape_of(path) for path in images] == [(12, 8)] * count, name
    assert "3x8x12" in (tmp_path / "drawn" / "README.md").read_text()
    assert "8 x 12 x 3" in (tmp_path / "report" / "index.html").read_text()
