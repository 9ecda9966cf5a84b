"""Classes, prediction types and guidance in both backends: they agree, and each does its job."""

from __future__ import annotations

import numpy as np
import pytest

import class_jobs
import panel_jobs
from class_jobs import TOLD
from diptych.training.batches import to_uint8

ZERO = ["diffusion.objective=v", "diffusion.zero_terminal_snr=true", "diffusion.schedule=cosine"]
CONFIGS = {
    "eps": panel_jobs.small(*TOLD),
    "v, weighted": panel_jobs.small(*TOLD, "diffusion.objective=v", "train.weighting=min-snr"),
    "x0, zero SNR": panel_jobs.small(
        "diffusion.objective=x0", "diffusion.zero_terminal_snr=true", "model.dropout=0.1"
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_of_the_panels_agree(both, name):
    (loss_a, torch), (loss_b, jittor) = (
        p.call(class_jobs.gradients, p.name, CONFIGS[name]) for p in both
    )
    assert loss_a == pytest.approx(loss_b, rel=1e-5)
    assert ("class_embed.weight" in torch) == bool(CONFIGS[name].model.num_classes)
    largest = max(np.abs(gradient).max() for gradient in torch.values())
    for key, gradient in torch.items():
        scale = np.abs(gradient).max()
        if scale > 1e-5 * largest:  # a bias before a norm: gradient zero, only rounding
            assert np.abs(gradient - jittor[key]).max() < 1e-3 * scale, key
    if "class_embed.weight" in torch:
        seen = set(class_jobs.batches(CONFIGS[name]).batch(1).labels.tolist())
        rows = np.abs(torch["class_embed.weight"]).max(axis=1)
        assert {k for k in range(11) if rows[k] > 0} == seen and len(seen) > 3


def test_predictions_of_the_panels_agree(both):
    config = CONFIGS["v, weighted"]
    x, t = panel_jobs.noise_images(config, 4), np.array([0, 17, 400, 999])
    found = [p.call(class_jobs.predictions, p.name, config, x, t, [1, 2, 3, 4]) for p in both]
    for torch, jittor in zip(*found, strict=True):
        assert np.abs(torch - jittor).max() < 1e-5
    given, none, silent = found[0]
    assert np.array_equal(none, silent) and np.abs(given - none).max() > 1e-3


def test_guidance_of_the_panels_agrees(both):
    """w = 1 is the class alone and w = 0 none, whatever the class; images differ by column."""
    options = [
        {"classes": [3, 7], "guidance": 1.0}, {"classes": [3, 7]}, {"classes": [7]},
        {"guidance": 0.0}, {"classes": [3], "guidance": 0.0}, {"classes": [3, 7], "guidance": 2.0},
        {},
    ]  # fmt: skip
    found = [p.call(class_jobs.guided, p.name, CONFIGS["eps"], options) for p in both]
    for torch, jittor in zip(*found, strict=True):
        apart = np.abs(to_uint8(torch).astype(int) - to_uint8(jittor))
        assert apart.max() <= 1
    for one, same, sevens, none, other_none, guided, turns in found:
        assert np.array_equal(one, same)
        # Rounding follows the images' scale, 77: 2.7e-5 was measured where a pixel is near 0.
        rounding = 1e-6 * np.abs(one).max()
        assert np.abs(one[1::2] - sevens[1::2]).max() < rounding  # one row of the class for all
        assert np.array_equal(none, other_none)
        assert np.abs(one[::2] - sevens[::2]).max() > 1e-3
        assert min(np.abs(guided - x).max() for x in (one, none)) > 1e-3
        assert np.abs(turns[3] - one[0]).max() > 1e-3  # another image and another class
        assert np.abs(turns[7] - one[7]).max() < rounding  # the same: image 7, class 7


SHORT = ["diffusion.timesteps=10"]  # the grid takes 10 steps
TRAINED = {
    "cosine": (panel_jobs.small(*SHORT, "diffusion.schedule=cosine"), {"steps": 4}),
    "sigmoid": (
        panel_jobs.small(*SHORT, "diffusion.schedule=sigmoid"),
        {"solver": "dpmpp", "steps": 4},
    ),
    "zero SNR, classes": (
        panel_jobs.small(*SHORT, *TOLD, *ZERO),
        {"steps": 4, "spacing": "trailing", "guidance": 2.0},
    ),
}


@pytest.mark.parametrize("name", TRAINED)
def test_training_and_sampling_end_to_end(both, tmp_path, name):
    config, options = TRAINED[name]
    settings = {"steps": 4, "checkpoint_every": 4}
    config = config.model_copy(update={"train": config.train.model_copy(update=settings)})
    images = []
    for panel in both:
        run = tmp_path / panel.name
        halves = "classes" in name
        found = panel.call(class_jobs.train_and_draw, panel.name, config, run, halves, **options)
        assert found["resumed to the same bits"] and np.isfinite(found["images"]).all()
        assert (run / "whole" / "grids" / "step-00000004.png").is_file()
        images.append(found["images"])
    assert np.abs(images[0] - images[1]).max() < 1e-2 * np.abs(images[0]).max()
    if "classes" in name:
        folders = [
            panel.call(class_jobs.sets_of, panel.name, tmp_path / panel.name / "whole", **drawing)
            for panel, drawing in zip(both, ({}, {"classes": [7], "guidance": 3.0}), strict=True)
        ]
        assert "-class0to9-w1-" in folders[0][0].name
        assert "-class7-w3-" in folders[1][0].name
