"""The feature networks of both backends, against the tools' own networks and each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.data import find, load_dataset
from diptych.network.features.classifier import CLASSES, CONVS, DIMS, SHIPPED
from diptych.network.features.conv import misfit, shapes
from feature_jobs import (
    accuracy,
    extract,
    extract_resized,
    extract_with_fault,
    operators_apart,
    refusal,
    trained,
)
from inception_file import images, preprocessed, write

GOLDEN = dict(np.load((Path(__file__).parents[1] / "golden") / "inception.npz"))
# Largest error over largest value. Measured against torch-fidelity in float64: PyTorch panel
# 4.9e-7 (pool), 2.1e-6 (spatial); Jittor panel 4.5e-7, 2.3e-6; torch-fidelity's own float32
# 2.7e-7, 1.2e-6.
TOLERANCE = {"pool": 2e-6, "logits": 2e-6, "spatial": 1e-5}


@pytest.fixture(scope="module")
def inception(tmp_path_factory):
    """A random file in the published layout."""
    return write(tmp_path_factory.mktemp("inception") / "random.safetensors")


def errors(got, truth):
    assert {k: v.shape for k, v in got.items()} == {k: v.shape for k, v in truth.items()}
    return {k: float(np.abs(got[k] - truth[k]).max() / np.abs(truth[k]).max()) for k in truth}


def within(got, truth, share=1.0):
    return all(error <= share * TOLERANCE[k] for k, error in errors(got, truth).items())


def test_inception_is_the_tools_network(panel, inception):
    got = panel.call(extract, panel.name, "inception", inception, preprocessed(images(4)))
    assert within(got, GOLDEN), errors(got, GOLDEN)


@pytest.mark.parametrize("fault", ["eps", "avg_pool", "max_pool"])
def test_a_planted_fault_is_noticed(panel, inception, fault):
    """One norm's eps, one average that counts padding, an average for 7c's maximum."""
    given = panel.name, fault, inception, preprocessed(images(4))
    got = panel.call(extract_with_fault, *given)
    assert not within(got, GOLDEN, share=5), errors(got, GOLDEN)


def test_the_panels_agree(both, inception):
    x = preprocessed(images(3, seed=1))
    one, other = (p.call(extract, p.name, "inception", inception, x) for p in both)
    assert within(one, other), errors(one, other)


def test_a_feature_depends_on_its_image_alone(panel, inception):
    x = preprocessed(images(4))
    whole = panel.call(extract, panel.name, "inception", inception, x)
    alone = [panel.call(extract, panel.name, "inception", inception, x[i : i + 1]) for i in (0, 3)]
    for got, i in zip(alone, (0, 3), strict=True):
        assert within(got, {k: v[i : i + 1] for k, v in whole.items()})


def test_classifier_batches_join_in_order(panel):
    """300 images are two batches."""
    x = load_dataset("mnist-10k").images[:300] / np.float32(255)
    whole = panel.call(extract, panel.name, "mnist", None, x)
    parts = [
        panel.call(extract, panel.name, "mnist", None, x[i : i + 75]) for i in range(0, 300, 75)
    ]
    for name in ("pool", "logits"):
        joined = np.concatenate([part[name] for part in parts])
        assert np.abs(whole[name] - joined).max() < 1e-5 * np.abs(joined).max()
    assert whole["pool"].shape == (300, 96) and whole["spatial"] is None


def test_resizing_is_two_matrix_products(panel, inception):
    pixels = images(2, size=40, seed=2)[:, :, :32]
    draw = np.random.default_rng(3)
    rows, columns = (draw.uniform(0, 2 / n, (299, n)) for n in (40, 32))
    y = np.einsum("rh,nhwc,sw->ncrs", rows, pixels.astype(np.float64), columns)
    x = (np.clip(y, 90, 150) / 128 - 1).astype(np.float32)
    assert (y < 90).any() and (y > 150).any()
    given = panel.name, inception, pixels, rows, columns, 1 / 128, -1.0
    got = panel.call(extract_resized, *given, limits=(90.0, 150.0))
    assert within(got, panel.call(extract, panel.name, "inception", inception, x), share=5)


def test_greyscale_is_repeated(panel, inception):
    grey, unit = images(1)[..., :1], np.eye(299)
    given = panel.name, inception, grey, unit, unit, 1 / 128, -1.0
    x = preprocessed(np.repeat(grey, 3, axis=3))
    got = panel.call(extract_resized, *given)
    assert within(got, panel.call(extract, panel.name, "inception", inception, x))


@pytest.mark.parametrize("name, least", [("mnist", 0.993), ("fashion_mnist", 0.92)])
def test_shipped_classifiers_are_as_good_as_they_say(panel, name, least, monkeypatch):
    monkeypatch.delenv("DIPTYCH_DATA", raising=False)  # it may name a folder with MNIST alone
    source, split = ("mnist-10k", "train") if name == "mnist" else (name, "test")
    if name != "mnist" and find(name, "test") is None:
        pytest.skip(f"{name} is not on this machine")
    data = load_dataset(source, split, download=False)
    score = panel.call(accuracy, panel.name, name, data.images, data.labels)
    # An image on the border between two digits may fall either way by rounding.
    assert score == pytest.approx(SHIPPED[name].accuracy, abs=2e-4)
    assert score >= least


@pytest.mark.torch
def test_training_a_classifier_repeats_itself(panels):
    """The shipped weights can be made again: the same bits from one seed on one machine."""
    one, other = (panels["torch"].call(trained, 640) for _ in range(2))
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert misfit(one, shapes(CONVS, CLASSES, DIMS)) is None


MISFITS = {
    "inception": [np.zeros((1, 3, 64, 64), np.float32), np.zeros((1, 3, 299, 299))],
    "mnist": [np.zeros((1, 3, 28, 28), np.float32), np.zeros((0, 1, 28, 28), np.float32)],
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_named(panel, inception, name):
    for x in MISFITS[name]:
        path = inception if name == "inception" else None
        assert panel.call(refusal, panel.name, name, path, x).startswith(f"{name}: ")


@pytest.mark.slow
@pytest.mark.jittor
def test_jittors_own_operators_give_the_same(panels):
    """They are what runs on CUDA, where these tests do not."""
    apart = panels["jittor"].call(operators_apart)
    assert max(apart.values()) < 1e-6, apart
