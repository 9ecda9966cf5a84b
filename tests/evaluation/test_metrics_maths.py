"""The metrics against the reference tools, a 60-digit reference, and properties that must hold."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from diptych.errors import UserError
from diptych.evaluation import (
    Moments,
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    neighbours,
)
from diptych.evaluation.kid import unbiased_mmd
from diptych.evaluation.resize import RESIZES, matrix, resize
from properties import given, st

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
from make_metrics import SIZES, STRIDE, features, gaussians, logits, pictures  # noqa: E402

EXPECTED = json.loads((GOLDEN / "metrics.json").read_text())


def stats(rows: np.ndarray) -> Statistics:
    found = Statistics(rows.shape[1])
    found.add(rows)
    return found


def moments(rows: np.ndarray) -> Moments:
    return stats(rows).moments()


# Statistics ------------------------------------------------------------------------------------


@given(cuts=st.lists(st.integers(0, 300), max_size=6), order=st.integers(0, 1000))
def test_uneven_shards_in_any_order_give_the_same_bits(cuts, order):
    rows = features(11, 300, 16)
    edges = [0, *sorted(cuts), 300]
    shards = [stats(rows[a:b]) for a, b in pairwise(edges)]
    np.random.RandomState(order).shuffle(shards)
    total = Statistics(16)
    for shard in shards:
        total = total + shard
    whole = stats(rows)
    assert total == whole
    assert total.moments().cov.tobytes() == whole.moments().cov.tobytes()


def test_plain_float_sums_would_not_pass_the_shard_test():
    """The test above can fail: float64 sums of the same shards differ in their last bits."""
    rows = features(11, 300, 16).astype(np.float64)
    parts = [rows[:37], rows[37:190], rows[190:]]
    assert (sum(p.T @ p for p in parts) != rows.T @ rows).any()


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 300.0, 1e5, 1e9])
def test_moments_are_those_of_numpy_at_any_scale(scale):
    rows = features(12, 400, 24) * np.float32(scale)
    found, exact = moments(rows), rows.astype(np.float64)
    step = max(2.0**-30, np.abs(exact).max() * 2.0**-23)  # of the grids
    np.testing.assert_allclose(found.mean, exact.mean(0), atol=step / 20, rtol=0)
    cov = np.cov(exact, rowvar=False)
    error = step * np.sqrt(np.abs(cov).max()) / 20 + step**2
    np.testing.assert_allclose(found.cov, cov, atol=error, rtol=0)
    assert (found.cov == found.cov.T).all()


def test_one_huge_row_moves_no_other_row_to_a_coarser_grid():
    rows = features(13, 50, 8)
    huge = np.full((1, 8), 1e7, np.float32)
    together, apart = stats(np.vstack([rows, huge])), stats(rows) + stats(huge)
    assert together == apart and set(together.grids) == {10, 26}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mean, cov", [(1e200, 1.0), (1.5e308, 1.0), (0.0, 1e308)])
def test_a_distance_beyond_float64_is_refused(mean, cov):
    side = Moments(10, np.zeros(2), np.eye(2))
    with pytest.raises(UserError, match="beyond float64"):
        frechet_distance(side, Moments(10, np.full(2, mean), np.eye(2) * cov))


def test_statistics_refuse_what_they_cannot_hold():
    with pytest.raises(UserError, match="not finite"):
        stats(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(UserError, match=r"expected \(N, 3\)"):
        Statistics(3).add(np.zeros((2, 4), np.float32))
    with pytest.raises(UserError, match="cannot be added"):
        Statistics(3) + Statistics(4)
    with pytest.raises(UserError, match="2 images"):
        stats(np.zeros((1, 3), np.float32)).moments()


# Frechet distance ------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["pytorch-fid", "torch-fidelity", "clean-fid"])
def test_frechet_distance_is_that_of_the_tools(tool):
    a, b = gaussians()["regular"]
    expected = EXPECTED["frechet"]["regular"][tool]
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-7)
    assert frechet_distance(moments(a), moments(b), a, b) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("orders, by_singular_values", [(2, False), (10, True)])
def test_eigenvalues_serve_only_where_they_are_sure(monkeypatch, orders, by_singular_values):
    """Both routes agree; where the condition is bad the squared one is not trusted."""
    turn = np.linalg.qr(np.random.RandomState(0).standard_normal((40, 40)))[0]
    scale = np.logspace(0, -orders / 2, 40)
    a, b = (
        moments(np.random.RandomState(k).standard_normal((400, 40)) * scale @ turn) for k in (1, 2)
    )
    asked, svd = [], np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *w, **k: asked.append(1) or svd(*w, **k))
    found = frechet_distance(a, b)
    assert bool(asked) == by_singular_values
    factors = [np.linalg.cholesky(side.cov).T for side in (a, b)]
    root = svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    gap = a.mean - b.mean
    exact = gap @ gap + np.trace(a.cov) + np.trace(b.cov) - 2 * root
    assert found == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("case", ["singular", "mixed"])
def test_singular_covariances_against_sixty_digits(case):
    a, b = gaussians()[case]
    expected = EXPECTED["frechet"][case]["exact"]
    assert frechet_distance(moments(a), moments(b), a, b) == pytest.approx(expected, rel=1e-11)
    assert frechet_distance(moments(a), moments(b)) == pytest.approx(expected, rel=1e-10)


def test_the_tools_would_not_pass_the_sixty_digits():
    """They are off by 2e-8 and more: the root of float64's rounding."""
    for case in ("singular", "mixed"):
        exact = EXPECTED["frechet"][case]["exact"]
        for tool in ("pytorch-fid", "torch-fidelity", "clean-fid"):
            assert abs(EXPECTED["frechet"][case][tool] / exact - 1) > 1e-8


def test_a_set_is_at_distance_zero_of_itself():
    for a, _ in gaussians().values():
        assert abs(frechet_distance(moments(a), moments(a), a, a)) < 1e-9
        assert abs(frechet_distance(moments(a), moments(a))) < 1e-9


def test_gaussians_with_diagonal_covariances_have_a_closed_form():
    one, two = np.array([1.0, 4.0, 0.0]), np.array([9.0, 0.0, 0.0])
    a = Moments(None, np.zeros(3), np.diag(one))
    b = Moments(None, np.array([1.0, 2.0, 2.0]), np.diag(two))
    assert frechet_distance(a, b) == pytest.approx(9 + np.sum((one**0.5 - two**0.5) ** 2))


def test_a_dead_feature_does_not_disturb():
    a, b = gaussians()["regular"]
    before = frechet_distance(moments(a), moments(b))
    dead = [np.hstack([x, np.zeros((len(x), 5), np.float32)]) for x in (a, b)]
    assert frechet_distance(*map(moments, dead)) == pytest.approx(before, rel=1e-6)


# Kernel distance, Inception Score, neighbours ----------------------------------------------------


def test_kernel_distance_is_that_of_the_tools():
    a, b = features(7, 300, 64), features(8, 260, 64, 0.1)
    found, expected = kernel_distance(a, b, 20, 100), EXPECTED["kid"]
    assert found.mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)
    assert found.std == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-4)
    np.random.seed(5)
    drawn = [(np.random.choice(len(b), 100, False), np.random.choice(len(a), 100, False))
             for _ in range(20)]  # fmt: skip
    mean = np.mean([unbiased_mmd(b[i], a[j]) for i, j in drawn])
    assert mean == pytest.approx(expected["clean-fid-seed-5"], rel=1e-4)


def test_kernel_distance_is_unbiased():
    """Two halves of one distribution: the mean is zero within its error, and often negative."""
    random = np.random.RandomState(0)
    found = [unbiased_mmd(*random.standard_normal((2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20 and np.mean(np.array(found) < 0) > 0.3


def test_inception_score_is_that_of_torch_fidelity():
    found, expected = inception_score(logits(9, 1003, 20)), EXPECTED["is"]
    assert found.mean == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert found.std == pytest.approx(expected["inception_score_std"], rel=1e-4)


def test_inception_score_of_known_answers():
    sure = np.full((40, 4), -1000.0)
    sure[np.arange(40), np.arange(40) % 4] = 1000.0
    assert inception_score(sure, splits=10, shuffle=False).mean == pytest.approx(4.0)
    assert inception_score(np.zeros((40, 4))).mean == pytest.approx(1.0)


def test_neighbours_are_those_of_torch_fidelity_and_prdc():
    a, b = features(7, 300, 64), features(8, 260, 64, 0.1)
    expected = EXPECTED["prdc"]
    fidelity = EXPECTED["precision-recall"]
    # torch-fidelity's first input is the one that it calls generated.
    swapped = neighbours(real=b, generated=a)
    assert swapped.precision == pytest.approx(fidelity["precision"], abs=1e-7)
    assert swapped.recall == pytest.approx(fidelity["recall"], abs=1e-7)
    found = neighbours(real=a, generated=b, block=77)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(expected[name], abs=1e-12), name


def test_copies_of_the_reference_are_inside_it():
    rows = np.repeat(features(14, 30, 8), 5, axis=0)
    found = neighbours(rows, rows[:50].copy(), block=7)
    assert found.precision == 1.0 and found.coverage == pytest.approx(50 / 150)


def test_too_few_images_are_refused():
    few = features(15, 3, 4)
    with pytest.raises(UserError, match="cannot be drawn from 3"):
        kernel_distance(few, few)
    with pytest.raises(UserError, match="10 parts"):
        inception_score(few)
    with pytest.raises(UserError, match="neighbour 3"):
        neighbours(few, few)


# Resizes -----------------------------------------------------------------------------------------

KINDS = {"pytorch-fid": "bilinear", "torch-fidelity": "tf1-bilinear", "clean-fid": "pil-bicubic"}


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("tool", KINDS)
def test_resizes_are_those_of_the_tools(tool, size):
    expected = np.load(GOLDEN / "metrics-resize.npz")[f"{tool} {size[0]}x{size[1]}"]
    found = resize(pictures(10, *size), KINDS[tool])[:, :, ::STRIDE, ::STRIDE]
    found = np.clip(found, 0, 255) if tool == "clean-fid" else found
    assert np.abs(found - expected).max() < 2e-4  # of 255; 6e-5 measured


@pytest.mark.parametrize("kind", RESIZES)
def test_a_constant_picture_stays_constant(kind):
    for n in (1, 7, 28, 299, 1000):
        np.testing.assert_allclose(matrix(kind, n).sum(axis=1), 1.0, atol=1e-6)


def test_the_three_resizes_are_not_the_same():
    pixels = pictures(10, 28, 28)
    a, b, c = (resize(pixels, kind) for kind in RESIZES)
    assert min(np.abs(a - b).max(), np.abs(a - c).max(), np.abs(b - c).max()) > 10
