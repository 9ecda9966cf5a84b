"""Small image sets for tests of scores: a reference, and three sets from each of two models."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from diptych.evaluation.run import evaluate
from diptych.evaluation.score import Score
from diptych.evaluation.sets import Settings
from fake_features import Fake

ALL = ("fid", "kid", "is", "prdc", "sfid")
QUICK = {"progress": False}


def digits(seed, num, brightness=1.0):
    """Blurred blobs, (N, 28, 28, 1) uint8."""
    random = np.random.RandomState(seed)
    y, x = np.mgrid[:28, :28]
    centre = random.uniform(8, 20, (num, 2, 1, 1))
    width = random.uniform(3, 6, (num, 1, 1))
    distance = (x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2
    blobs = 255 * brightness * np.exp(-distance / (2 * width**2))
    return blobs.astype(np.uint8)[..., None]


@pytest.fixture(scope="module", name="places")
def make_places(tmp_path_factory):
    """real.npz, and sample folders a0 .. a2 and b0 .. b2 with manifests."""
    root = tmp_path_factory.mktemp("sets")
    np.savez(root / "real.npz", images=digits(0, 60))
    for model, brightness in (("a", 0.9), ("b", 0.5)):
        for seed in range(3):
            folder = root / f"{model}{seed}"
            folder.mkdir()
            for i, image in enumerate(digits(10 * ord(model) + seed, 40, brightness)):
                Image.fromarray(image[..., 0]).save(folder / f"{i:05d}.png")
            card = {"solver": "ddim", "steps": 10, "eta": 0.0, "spacing": "uniform",
                    "sigma_type": "none", "clip": False, "last_timestep": -1,
                    "timesteps": [900, 0], "weights": "ema", "weights_sha256": f"sha-{model}",
                    "backend": "torch", "device": "cpu", "seed": seed, "num": 40,
                    "complete": True}  # fmt: skip
            (folder / "manifest.json").write_text(json.dumps(card))
    return root


def sets(places, model):
    return [places / f"{model}{seed}" for seed in range(3)]


def scores(sources, places, extractor=None, **settings):
    chosen = Settings(**{"features": "mnist", **QUICK, **settings})
    extractor = extractor or Fake(chosen.features)
    found = evaluate(sources, str(places / "real.npz"), chosen, extractor)
    return {score["metric"]: Score.from_json(score) for score in found["scores"]}, found
