"""The metric rung without a framework: both implementations agree, faults reach every number."""

from __future__ import annotations

import numpy as np
import pytest

from diptych.align.faults import mutations
from diptych.align.ladder import measures
from diptych.align.ladder.floors import gate_of
from diptych.align.ladder.rungs import metric
from diptych.align.reference import metric as reference_metric
from diptych.evaluation.feature_network import Features
from diptych.evaluation.features.weights_file import classifier_weights

SEED = 3
ROUNDINGS = gate_of("metric").k * 16 * 5.96e-8  # far more than the rung allows


class Double:
    """The reference's classifier where a panel's stands."""

    dims = 96

    def __init__(self):
        self.arrays = classifier_weights("mnist", None).arrays

    def __call__(self, pixels):
        pool, logits = reference_metric.classify(pixels.astype(np.float64), self.arrays)
        return Features(pool, logits, None)


def sets():
    return [metric.images(SEED, which) for which in (0, 1)]


def shipped(extractor):
    """Traces of the rung, of a panel and of the reference."""
    return dict(metric.measured(extractor, [metric.prepare(shown) for shown in sets()]))


@pytest.fixture(scope="module")
def extractor():
    return Double()


@pytest.fixture(scope="module")
def truth(extractor):
    return dict(reference_metric.trace(extractor.arrays, sets()))


def error(name, found, truth):
    return measures.distances(("max",), np.asarray(found[name]), truth[name])["max"]


def test_images_are_keyed_and_of_two_kinds():
    own, other = sets()
    assert own.dtype == np.uint8 and own.shape == other.shape == (64, 42, 42, 3)
    assert np.array_equal(own, metric.images(SEED, 0))
    assert not np.array_equal(own, metric.images(SEED + 1, 0))
    assert own.mean() < 64 < 192 < other.mean()
    assert (own[..., 0] != own[..., 1]).any()


def test_both_writings_have_the_same_names_and_agree(extractor, truth):
    found = shipped(extractor)
    assert list(found) == list(truth)
    assert {found[name].shape == truth[name].shape for name in truth} == {True}
    assert max(error(name, found, truth) for name in truth) < 1e-6


@pytest.mark.parametrize("fault", ["jpeg", "resize"])
def test_a_fault_before_the_classifier_moves_every_number(extractor, truth, fault):
    with mutations.planted(fault, None):
        found = shipped(extractor)
    for name in truth:
        assert error(name, found, truth) > ROUNDINGS, name
    again = shipped(extractor)
    assert max(error(name, again, truth) for name in truth) < 1e-6


LATE = {
    "frechet": (metric, "frechet_distance", lambda right: lambda *a: right(*a) * (1 + 1e-4)),
    "kernel": (metric, "kernel_distance",
               lambda right: lambda a, b, n, size: right(a, b, n, size - 1)),
    "inception score": (metric, "inception_score",
                        lambda right: lambda logits, n: right(logits, n, shuffle=False)),
}  # fmt: skip


@pytest.mark.parametrize("name", LATE)
def test_a_fault_in_one_score_shows_in_that_score_alone(extractor, truth, monkeypatch, name):
    owner, attribute, change = LATE[name]
    monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))
    found = shipped(extractor)
    assert [n for n in truth if error(n, found, truth) > ROUNDINGS] == [name]
