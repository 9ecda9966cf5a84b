"""Scores end to end with a small fake network: protocols, repeats, shards, refusals, commands."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.evaluation.protocol import NATIVE, PROTOCOLS
from diptych.evaluation.run import evaluate
from diptych.evaluation.score import Score, combine, difference, split_half
from diptych.evaluation.sets import Settings
from fake_features import Fake
from metric_sets import ALL, QUICK, make_places, scores, sets  # noqa: F401


def test_every_metric_bears_its_network_name(places):
    small = ("fid", "kid", "is", "prdc")
    found, result = scores([places / "a0"], places, metrics=small)
    names = ("frechet", "kid", "is", "precision", "recall", "density", "coverage")
    assert list(found) == [f"mnist-{name}" for name in names]
    assert sum(result["classes"]["histogram"]) == pytest.approx(1.0)
    assert 0 <= result["classes"]["confident"] <= 1
    whole, result = scores([places / "a0"], places, metrics=ALL, features="inception")
    assert {"fid", "sfid", "is", "recall"} <= set(whole) and result["classes"] is None
    with pytest.raises(UserError, match="sfid needs"):
        scores([places / "a0"], places, metrics=("sfid",))


def test_the_value_is_that_of_numpy_on_the_same_features(places):
    from diptych.evaluation import Moments, frechet_distance
    from diptych.evaluation.images import open_images

    network = Fake("mnist")
    rows = [network(NATIVE.prepare(np.stack(list(open_images(places / name).stream())))).pool
            for name in ("a0", "real.npz")]  # fmt: skip
    sides = [Moments(len(r), r.mean(0, dtype=np.float64), np.cov(r.T.astype(np.float64)))
             for r in rows]  # fmt: skip
    found, _ = scores([places / "a0"], places)
    assert found["mnist-frechet"].value == pytest.approx(frechet_distance(*sides), rel=1e-6)


@pytest.mark.parametrize("features", ["mnist", "inception"])
def test_the_batch_size_changes_nothing_at_all(places, features):
    small = ("fid", "kid", "is", "prdc")
    one, other = (
        scores([places / "a0"], places, metrics=small, features=features, batch=batch)[0]
        for batch in (3, 64)
    )
    for name, score in one.items():
        assert score.value == pytest.approx(other[name].value, rel=1e-9, abs=1e-12), name
        assert score.protocol_id == other[name].protocol_id


def test_the_protocol_says_all_and_unlike_ones_are_refused_by_field(places):
    base, _ = scores([places / "a0"], places, features="inception")
    protocol = base["fid"].protocol
    assert protocol["num"] == 40 and protocol["reference.count"] == 60
    assert protocol["weights"] == "ema" and protocol["sampler.steps"] == 10
    assert protocol["extractor_sha256"] == "fake-inception-0"
    changes = {
        "num": {"num": 30},
        "resize": {"protocol": "torch-fidelity"},
        "extractor_sha256": {"extractor": Fake("inception", seed=1)},
    }
    for field, change in changes.items():
        other, _ = scores([places / "a0"], places, **{"features": "inception", **change})
        assert other["fid"].protocol_id != base["fid"].protocol_id
        with pytest.raises(UserError, match="differ in"):
            difference(base["fid"], other["fid"])
        with pytest.raises(UserError, match=f"'{field}'|'mean_dtype'|'clip'|'protocol'"):
            difference(base["fid"], other["fid"])


def test_the_resize_moves_the_score(places):
    values = [scores([places / "a0"], places, features="inception", protocol=name)[0]["fid"].value
              for name in PROTOCOLS]  # fmt: skip
    assert len({round(value, 6) for value in values}) == 3


def test_repeats_give_an_interval_and_words_come_through_it(places):
    a, _ = scores(sets(places, "a"), places)
    b, _ = scores(sets(places, "b"), places)
    a, b = a["mnist-frechet"], b["mnist-frechet"]
    low, high = a.interval
    assert low < a.value < high and len(a.repeats) == 3
    found = difference(a, b)
    assert found["interval"][0] > 0 and "B is higher, that is worse" in found["text"]
    assert "no difference is shown" in difference(a, a)["text"]


def score(value, spread, repeats, **protocol):
    values = tuple(value + spread * x for x in np.linspace(-1, 1, repeats)) if repeats else ()
    return Score("fid", value, {"num": 10, **protocol}, values)


def test_without_an_interval_nothing_is_claimed():
    """The numbers differ tenfold, and still there is nothing to say."""
    for repeats in (0, 2):
        text = difference(score(3.0, 0.1, repeats), score(30.0, 0.1, 3))["text"]
        assert "nothing can be said" in text
        assert not any(word in text for word in ("better", "worse", "lower", "higher"))


def test_an_interval_with_zero_claims_no_difference():
    text = difference(score(5.0, 2.0, 3), score(6.0, 2.0, 3))["text"]
    assert "no difference is shown" in text and "better" not in text


def test_more_is_better_of_recall_and_less_of_a_distance():
    for metric, word in (("fid", "worse"), ("mnist-recall", "better"), ("mnist-kid", "worse"),
                         ("fashion-mnist-frechet", "worse"), ("is", "better")):  # fmt: skip
        a, b = (Score(metric, v, {}, (v, v + 0.01, v - 0.01)) for v in (1.0, 2.0))
        assert f"that is {word}" in difference(a, b)["text"]


@pytest.mark.parametrize("metric", ["ct", "mnist-ct", "pixel-ct", "pixel-authenticity",
                                    "authenticity", "mnist-nearest-ratio"])  # fmt: skip
def test_a_figure_that_should_be_that_of_held_out_images_is_neither_better_nor_worse(metric):
    a, b = (Score(metric, v, {}, (v, v + 0.01, v - 0.01)) for v in (1.0, 2.0))
    for found, word in ((difference(a, b), "higher"), (difference(b, a), "lower")):
        assert f"B is {word}, with these weights" in found["text"]


def test_a_field_may_differ_on_purpose_and_only_that_one():
    a, b = score(5, 0.1, 3, steps=10), score(4, 0.1, 3, steps=50)
    assert difference(a, b, across=["steps"])["across"] == ["steps"]
    with pytest.raises(UserError, match="'steps'"):
        difference(a, b, across=["num"])


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random, hits = np.random.RandomState(0), 0
    for _ in range(400):
        values = random.standard_normal(3)
        low, high = combine("x", [Score("x", v, {}) for v in values]).interval
        hits += low <= 0 <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_split_half_removes_a_bias_that_falls_as_one_over_n():
    truth, slope = 3.0, 50.0
    assert split_half(truth + slope / 100, [truth + slope / 50] * 2) == pytest.approx(truth)


def test_a_score_survives_its_file_and_refuses_a_changed_one():
    one = score(5.0, 0.1, 3)
    text = json.loads(json.dumps(one.to_json()))
    assert Score.from_json(text) == one
    text["protocol"]["num"] = 50000
    with pytest.raises(UserError, match="changed by hand"):
        Score.from_json(text)


REFUSED = {
    "no reference": (
        lambda p: evaluate([p / "a0"], None, Settings(**QUICK), Fake()),
        "give --reference",
    ),
    "too many": (lambda p: scores([p / "a0"], p, num=50), "holds 40 images"),
    "unlike models": (lambda p: scores([p / "a0", p / "b1"], p), "weights_sha256"),
    "twice the same": (lambda p: scores([p / "a0", p / "a0"], p), "same draw"),
    "sets and repeats": (lambda p: scores(sets(p, "a"), p, repeats=2), "repeats already"),
    "metric": (lambda p: scores([p / "a0"], p, metrics=("fdi",)), "did you mean 'fid'"),
    "zero": (lambda p: scores([p / "a0"], p, num=0), "1 or more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(places, case):
    action, message = REFUSED[case]
    with pytest.raises(UserError, match=message):
        action(places)


def test_one_source_is_cut_into_disjoint_sets(places):
    found, _ = scores([places / "a0"], places, repeats=4)
    assert found["mnist-frechet"].protocol["num"] == 10
    assert len(set(found["mnist-frechet"].repeats)) == 4


def test_a_data_set_reference_is_kept_and_used_again(places, tmp_path):
    network = Fake("mnist")
    settings = Settings(("fid", "kid"), "mnist", cache=tmp_path, batch=2500, progress=False)
    first = evaluate([places / "a0"], "mnist-10k:train", settings, network)
    calls = network.calls
    second = evaluate([places / "a0"], "mnist-10k:train", settings, network)
    assert network.calls - calls == 1 and calls == 5  # the samples alone
    assert first["scores"] == second["scores"]
    kept = next(tmp_path.glob("*.npy"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert (
        evaluate([places / "a0"], "mnist-10k:train", settings, network)["scores"]
        == (first["scores"])
    )
