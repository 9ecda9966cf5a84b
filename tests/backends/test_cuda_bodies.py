"""Jittor's CUDA bodies without a GPU: run thread by thread on a CPU, and compiled by nvcc.

What they compute is compared with NumPy in float64. No GPU has run them; how long they take there
is not known.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_keyed import expected
from test_layers import (
    FUNCTIONS,
    TOLERANCE,
    UPDATE_TOLERANCE,
    doubles,
    error,
    normal,
    output_shape,
)
from test_total_norm import BOUND

import cuda_jobs
import keyed_jobs
import nvcc
import reference_layers as reference
from layer_jobs import NUMBERS, rate

pytestmark = pytest.mark.jittor

# (B, C, H, W), groups: fewer and more values in a group than a block has threads, 1x1 pixels, not
# a multiple of either; all images in one shift, each in its own, none.
NORMS = [
    ((5, 64, 7, 7), 32, 5, True),
    ((5, 64, 7, 7), 32, 1, False),
    ((2, 96, 1, 1), 3, 0, True),
    ((3, 64, 5, 9), 8, 1, True),
    ((2, 33, 23, 23), 1, 0, False),
    ((2, 16, 31, 17), 4, 2, True),
]


def norm_case(shape, groups, rows, act):
    """A norm's arguments, with values about as large as the eps; and the truth."""
    x, g, channels = normal(*shape) * 0.3, normal(*shape, seed=1), shape[1]
    w, b = normal(channels, seed=2), normal(channels, seed=3)
    shift = [normal(rows, channels, seed=4) * 0.3] if rows else []
    case = "GroupNorm", (channels, act), [w, b], [x, *shift], g, {"groups": groups, "eps": 0.1}
    x64, w64, b64, g64, *shift64 = doubles([x, w, b, g, *shift])
    shifted = shift64[0] if rows else None
    return case, reference.group_norm(x64, shifted, w64, b64, g64, act, groups, 0.1)


def function_case(name, inputs):
    g = normal(*output_shape(name, *inputs[0].shape), seed=5)
    return (name, None, [], inputs, g), getattr(reference, name)(*doubles([*inputs, g]))


def cases():
    """All operators with CUDA bodies: arguments and truths."""
    names = [name for name in FUNCTIONS if name != "attention"]
    found = [norm_case(*each) for each in NORMS]
    found += [function_case(name, FUNCTIONS[name]) for name in names]
    return [*found, function_case("silu", [normal(3, 1001) * 30])]


def broken():
    """Norms and a silu of images in which one group has a NaN, and another squares too large."""
    x, one, zero = normal(3, 32, 7, 7), np.ones(32, np.float32), np.zeros(32, np.float32)
    x[0, 3, 2, 2] = np.nan
    x[2, 3] *= np.float32(1e21)
    norm = "GroupNorm", (32, True), [one, zero], [x], x[::-1] * 0, {"groups": 8}
    return [norm, ("silu", None, [], [x], x[::-1] * 0)]


SHAPES = [(32, 16, 3, 3), (33,), (64, 31), (1,)] * 8 + [(129, 151)]  # 33: two launches


def updates():
    """State and gradients of five steps, the first ones clipped; and the truth."""
    params = [normal(*shape, seed=i) for i, shape in enumerate(SHAPES)]
    steps = [
        [normal(*s, seed=i + 100) * k for i, s in enumerate(SHAPES)]
        for k in (0.1, 0.03, 0.01, 0.001, 0.0001)
    ]
    zeros = [np.zeros_like(x) for x in params]
    truth = [doubles(group) for group in (params, zeros, zeros, params)]
    norms = [
        reference.adam_step(truth, doubles(g), i + 1, NUMBERS | {"lr": rate(i)})
        for i, g in enumerate(steps)
    ]
    flat = [np.concatenate([x.ravel() for x in group]) for group in truth]
    return ([params, zeros, zeros, params], steps), [np.array(norms), *flat]


@pytest.fixture(scope="module")
def ran(panels):
    """Everything, once: one compile by g++ for all bodies, and their source for nvcc."""
    if "jittor" not in panels:
        pytest.skip("jittor is not installed")
    given = [case for case, _ in cases()] + broken()
    return panels["jittor"].call(cuda_jobs.everything, given, updates()[0])


def test_bodies_write_their_outputs_alone_and_threads_meet_at_every_barrier(ran):
    assert ran["inside"] and ran["faults"] == 0


def test_the_order_of_threads_changes_no_bit(ran):
    def flat(found):
        if isinstance(found, (list, tuple)):
            return [x for each in found for x in flat(each)]
        return [np.asarray(found).tobytes()]

    assert flat(list(ran["rising"].values())) == flat(list(ran["falling"].values()))


def test_layers_and_gradients_are_those_of_float64(ran):
    layers = ran["rising"]["layers"][:-2]  # without the two of NaN and overflow
    for (case, truth), got in zip(cases(), layers, strict=True):
        assert error(got, truth) < TOLERANCE, case[:2]


def test_nan_and_overflow_reach_their_own_group_and_no_other(ran):
    norm, silu = ran["rising"]["layers"][-2:]
    for image in (0, 2):
        assert np.isnan(norm[0][image, :4]).all() and np.isfinite(norm[0][image, 4:]).all()
    assert np.isfinite(norm[0][1]).all()
    assert np.isnan(silu[0][0]).sum() == 1 and np.isfinite(silu[0][1]).all()


def test_clip_cuts_and_keeps_nan(ran):
    x = cuda_jobs.to_clip()
    assert np.array_equal(ran["rising"]["clip"], np.clip(x, -1, 1), equal_nan=True)


def test_five_updates_of_33_tensors(ran):
    (norms, *got), kept = ran["rising"]["updates"]
    _, (true_norms, *truth) = updates()
    assert norms == pytest.approx(true_norms, rel=UPDATE_TOLERANCE)
    assert norms[0] > 1 > norms[-1]
    assert error(got, truth) < UPDATE_TOLERANCE
    assert kept


def test_updates_by_the_least_gradients(ran):
    """Squares of 1e-18 are subnormal."""
    for state in ran["rising"]["least"]:
        assert all(np.isfinite(x).all() for x in state)


def test_the_total_norm_of_millions_loses_no_digits(ran):
    assert ran["rising"]["norm"] == pytest.approx(ran["true_norm"], rel=BOUND)


def test_noise_and_masks_are_the_host_s(ran):
    truth = expected()
    assert len(truth) == len(ran["rising"]["keyed"]) == len(keyed_jobs.DRAWS) * 6
    for mine, theirs in zip(truth, ran["rising"]["keyed"], strict=True):
        assert mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes()


@nvcc.needs_nvcc
def test_nvcc_compiles_every_body_with_jittor_s_headers(ran, tmp_path):
    """In one call, for an A100 and an H100, with Jittor's options; no register is spilled."""
    report = nvcc.compile_for_cards(ran["source"], tmp_path, ran["includes"])
    assert set(re.findall(r"(\d+) bytes spill", report)) == {"0"}


# Faults that a GPU shows now and then or not at all: in a small norm, a silu and a concatenation.
PLANTED = {
    "a barrier before a total": (
        "__syncthreads();  // the last total has been read", ""
    ),
    "a barrier between pairs": (
        "part[threadIdx.x + half];\n        __syncthreads();", "part[threadIdx.x + half];"
    ),
    "a barrier that half of the threads reach": (
        "part[threadIdx.x + half];\n        __syncthreads();",
        "part[threadIdx.x + half];\n        if (threadIdx.x < half) __syncthreads();",
    ),
    "the tail of the elements": ("<<<(n + 255) / 256, 256>>>", "<<<n / 256, 256>>>"),
    "no end of the elements": ("if (i < n) f(i);", "f(i);"),
    "the mean of another number": ("mean = total(sum) / n;", "mean = total(sum) / (n + 1);"),
    "a channel too late": ("rest += over;", "rest += over + 1;"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(panels, fault):
    small = [
        norm_case((2, 8, 5, 9), 2, 2, False),
        function_case("concat", [normal(2, 3, 5, 7), normal(2, 6, 5, 7)]),
    ]
    found = panels["jittor"].call(cuda_jobs.layers, [case for case, _ in small], [PLANTED[fault]])
    wrong = found["faults"] > 0 or not found["inside"]
    for (_, truth), *got in zip(small, found["rising"], found["falling"], strict=True):
        for each in got:
            wrong |= any(
                not np.abs(x - y).max() <= TOLERANCE * np.abs(y).max()
                for x, y in zip(each, truth, strict=True)
            )
    assert wrong
