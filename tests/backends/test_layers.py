"""The layers of both backends, forward and backward, against the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

import reference_layers as reference
from layer_jobs import (
    NUMBERS,
    evaluate,
    evaluate_plain,
    norm_and_rest,
    norms_of_views,
    rate,
    refusal,
    update,
)

# Largest error over largest value, outputs and gradients alike. Measured: 1.2e-6 (gradients of
# 3x3 weights, sums over 2,352 products), in both panels.
TOLERANCE = 3e-6
# Adam, five steps: 2.5e-7 measured, in v, which is a square.
UPDATE_TOLERANCE = 1e-6


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def error(got, truth):
    assert [x.shape for x in got] == [x.shape for x in truth]
    assert all(np.isfinite(x).all() for x in got)
    pairs = zip(got, truth, strict=True)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in pairs)


def doubles(arrays):
    return [x.astype(np.float64) if isinstance(x, np.ndarray) else x for x in arrays]


CONVOLUTIONS = {
    "3x3": ((32, 64, 3), (3, 32, 14, 14)),
    "first": ((1, 32, 3), (3, 1, 28, 28)),
    "last": ((32, 1, 3), (3, 32, 28, 28)),
    "strided": ((32, 32, 3, 2, (0, 1)), (3, 32, 14, 14)),
    "strided, no square": ((32, 32, 3, 2, (0, 1)), (3, 32, 10, 14)),
    "strided, odd size": ((32, 32, 3, 2, (0, 1)), (3, 32, 7, 7)),
    "1x1": ((64, 32, 1, 1, (0, 0)), (19, 64, 7, 7)),
    "1x1, one image": ((64, 32, 1, 1, (0, 0)), (1, 64, 7, 7)),
}


@pytest.mark.parametrize("init, shape", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolution(panel, init, shape):
    x, b = normal(*shape), normal(init[1], seed=1)
    w = normal(init[1], init[0], init[2], init[2]) * 0.1
    stride, pad = init[3:] or (1, (1, 1))
    size = [(n + sum(pad) - init[2]) // stride + 1 for n in shape[2:]]
    g = normal(shape[0], init[1], *size, seed=2)
    got = panel.call(evaluate, panel.name, "Conv2d", init, [w, b], [x], g)
    assert error(got, reference.conv2d(*doubles([x, w, b, g]), stride, pad)) < TOLERANCE


# With one channel in a group the norm undoes a shift: its gradient is zero, errors have no scale.
NORMS = [(32, 28, 0), (64, 28, 1), (64, 7, 0), (64, 7, 1), (64, 7, 5), (96, 3, 5)]


@pytest.mark.parametrize("act", [False, True], ids=["plain", "silu"])
@pytest.mark.parametrize("channels, size, rows", NORMS)
def test_group_norm(panel, channels, size, rows, act):
    """With a mean of three standard deviations: E[x^2] - E[x]^2 would lose digits."""
    x, g = normal(5, channels, size, size) + 3, normal(5, channels, size, size, seed=1)
    w, b = normal(channels, seed=2), normal(channels, seed=3)
    shift = [normal(rows, channels, seed=4)] if rows else []
    got = panel.call(evaluate, panel.name, "GroupNorm", (channels, act), [w, b], [x, *shift], g)
    x64, w64, b64, g64, *shift64 = doubles([x, w, b, g, *shift])
    truth = reference.group_norm(x64, shift64[0] if rows else None, w64, b64, g64, act)
    assert error(got, truth) < TOLERANCE


@pytest.mark.parametrize("groups", [1, 4, 8, 32])
@pytest.mark.parametrize("channels, rows, act", [(32, 0, True), (64, 5, True), (96, 1, False)])
def test_group_norm_of_any_number_of_groups(panel, groups, channels, rows, act):
    """Values about as large as the eps, so that a forgotten one would show."""
    x, g = normal(5, channels, 7, 7) * 0.3, normal(5, channels, 7, 7, seed=1)
    w, b = normal(channels, seed=2), normal(channels, seed=3)
    shift = [normal(rows, channels, seed=4) * 0.3] if rows else []
    given = panel.name, "GroupNorm", (channels, act), [w, b], [x, *shift], g
    got = panel.call(evaluate, *given, groups=groups, eps=0.1)
    x64, w64, b64, g64, *shift64 = doubles([x, w, b, g, *shift])
    shifted = shift64[0] if rows else None
    truth = reference.group_norm(x64, shifted, w64, b64, g64, act, groups, 0.1)
    assert error(got, truth) < TOLERANCE
    for other in ({"groups": 16, "eps": 0.1}, {"groups": groups, "eps": 1e-6}):
        assert error(got, reference.group_norm(x64, shifted, w64, b64, g64, act, **other)) > 0.01


def test_linear(panel):
    x, w, b, g = normal(5, 32), normal(48, 32), normal(48), normal(5, 48)
    got = panel.call(evaluate, panel.name, "Linear", (32, 48), [w, b], [x], g)
    assert error(got, reference.linear(*doubles([x, w, b, g]))) < TOLERANCE


MASK = (np.arange(3 * 8 * 6 * 4).reshape(3, 8, 6, 4) % 10 > 0).astype(np.uint8)
FUNCTIONS = {
    "silu": [normal(3, 70) * 30],
    "attention": [normal(3, 64, 7, 5), normal(3, 64, 7, 5, seed=1), normal(3, 64, 7, 5, seed=2)],
    "upsample": [normal(3, 8, 7, 5)],
    "avg_pool": [normal(3, 8, 6, 4)],
    "concat": [normal(3, 8, 7, 5), normal(3, 16, 7, 5)],
    "add": [normal(3, 8, 7, 5), normal(3, 8, 7, 5, seed=1)],
    "dropout": [normal(3, 8, 6, 4), MASK, 0.1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(panel, name):
    inputs, formula = FUNCTIONS[name], getattr(reference, name)
    g = normal(*output_shape(name, *inputs[0].shape), seed=5)
    got = panel.call(evaluate, panel.name, name, None, [], inputs, g)
    assert error(got, formula(*doubles([*inputs, g]))) < TOLERANCE


def output_shape(name, batch, channels=0, *size):
    scale = {"upsample": 2, "avg_pool": 0.5}.get(name, 1)
    channels = channels * 3 if name == "concat" else channels
    return (batch, channels, *(int(n * scale) for n in size))


SHAPES = [(32, 16, 3, 3), (32,), (64, 32), (1,)] * 20  # more tensors than one kernel takes


def test_update(panel):
    """The first gradients are clipped, the last are not."""
    params = [normal(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    sizes = [0.1, 0.03, 0.01, 0.001, 0.0001]
    steps = [[normal(*s, seed=i + 100) * k for i, s in enumerate(SHAPES)] for k in sizes]
    zeros = [np.zeros_like(x) for x in params]
    (norms, *got), kept = panel.call(update, panel.name, [params, zeros, zeros, params], steps)
    truth = [[x.astype(np.float64) for x in group] for group in (params, zeros, zeros, params)]
    for i, gradients in enumerate(steps):
        norm = reference.adam_step(truth, doubles(gradients), i + 1, NUMBERS | {"lr": rate(i)})
        assert norms[i] == pytest.approx(norm, rel=UPDATE_TOLERANCE)
    flat = [np.concatenate([x.ravel() for x in group]) for group in truth]
    assert norms[0] > 1 > norms[-1]
    assert error(got, flat) < UPDATE_TOLERANCE
    assert kept


@pytest.mark.parametrize("size", [1e-15, 1e-17, 1e-18, 1e-19, 1e-21, 1e-23, 0.0])
def test_update_by_the_least_gradients(panel, size):
    """Their squares are subnormal or 0, and a fast square root of such a number is NaN."""
    params = [normal(*shape, seed=i) for i, shape in enumerate(SHAPES[:4])]
    gradients = [np.full_like(x, size) for x in params]
    zeros = [np.zeros_like(x) for x in params]
    (_, *got), _ = panel.call(update, panel.name, [params, zeros, zeros, params], [gradients])
    assert all(np.isfinite(x).all() for x in got)
    assert error(got[0], np.concatenate([x.ravel() for x in params])) < 1e-6


@pytest.mark.parametrize("name", ["silu", "attention", "GroupNorm", "Conv2d"])
def test_nan_is_not_swallowed(panel, name):
    """Jittor compiles with -Ofast, which promises nothing about NaN; a guard relies on it."""
    x, w = normal(2, 32, 7, 7), normal(32, 32, 1, 1)
    x[0, 3, 2, 2] = np.nan
    init = {"GroupNorm": (32, True), "Conv2d": (32, 32, 1, 1, (0, 0))}.get(name)
    weights = [] if init is None else [w if name == "Conv2d" else normal(32), normal(32)]
    inputs = [x] * 3 if name == "attention" else [x]
    y, *_ = panel.call(evaluate, panel.name, name, init, weights, inputs, x * 0)
    assert np.isnan(y[0]).any()
    assert np.isfinite(y[1]).all()


@pytest.mark.parametrize("panel_name", ["torch", "jittor"])
def test_squares_beyond_float32_are_not_passed_over(panels, panel_name):
    """Without the check a group of such numbers would be all bias: finite, and wrong."""
    x, one, zero = normal(2, 32, 7, 7), np.ones(32, np.float32), np.zeros(32, np.float32)
    x[0, 3] *= np.float32(1e21)
    given = "GroupNorm", (32, True), [one, zero], [x], x * 0
    if panel_name == "torch":
        wrong = panels["torch"].call(norm_and_rest, *given[1:3], x)
    else:
        wrong = panels["jittor"].call(evaluate, "jittor", *given)[0]
    assert np.isfinite(wrong[1]).all()
    assert np.isnan(wrong[0, 3]).all()


@pytest.mark.torch
def test_a_norm_takes_images_in_any_layout(panels):
    """The norm asks PyTorch for rstd by an operator that refuses views."""
    x, weights = normal(2, 64, 7, 7), [normal(32), normal(32)]
    found = panels["torch"].call(norms_of_views, (32, True), weights, x)
    whole, *views = found
    for each in views:
        assert error([each], [whole]) < TOLERANCE


MISFITS = {
    "conv2d": [normal(1, 3, 4, 4), normal(8, 4, 3, 3), normal(8), 1, (1, 1)],
    "linear": [normal(2, 3), normal(4, 5), normal(4)],
    "group_norm": [normal(1, 32, 2, 2), normal(64), normal(64), None, 32, 1e-6, True],
    "attention": [normal(1, 4, 2, 2), normal(1, 4, 2, 3), normal(1, 4, 2, 2)],
    "concat": [normal(1, 4, 2, 2), normal(1, 4, 2, 3)],
    "add": [normal(1, 4, 2, 2), normal(1, 4, 2, 3)],
    "dropout": [normal(1, 4, 2, 2), normal(1, 4, 2, 2), 0.1],
    "avg_pool": [normal(1, 4, 3, 2)],
}


@pytest.mark.jittor
@pytest.mark.parametrize("name", MISFITS)
def test_a_misfit_is_named(panels, name):
    """Jittor itself stops with an empty message, or with a wrong result."""
    assert panels["jittor"].call(refusal, name, *MISFITS[name]).startswith(f"{name}: ")


@pytest.mark.slow
@pytest.mark.jittor
def test_jittors_own_operators_give_the_same(panels):
    """Products, attention and convolutions are theirs on CUDA, and on a CPU without oneDNN."""
    call = panels["jittor"].call
    inputs, g = FUNCTIONS["attention"], normal(3, 64, 7, 5, seed=5)
    got = call(evaluate_plain, "attention", None, [], inputs, g)
    assert error(got, reference.attention(*doubles([*inputs, g]))) < TOLERANCE
    x, w, b, g = normal(5, 32), normal(48, 32), normal(48), normal(5, 48)
    got = call(evaluate_plain, "Linear", (32, 48), [w, b], [x], g)
    assert error(got, reference.linear(*doubles([x, w, b, g]))) < TOLERANCE
    x, w, b, g = normal(3, 8, 8, 8), normal(4, 8, 3, 3), normal(4), normal(3, 4, 4, 4)
    got = call(evaluate_plain, "Conv2d", (8, 4, 3, 2, (0, 1)), [w, b], [x], g)
    assert error(got, reference.conv2d(*doubles([x, w, b, g]), 2, (0, 1))) < TOLERANCE
