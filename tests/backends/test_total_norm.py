"""The total norm of gradients, and the factor that clips them, at the sizes of real networks.

PyTorch and Jittor both add up in float32: over millions of squares the sum loses digits, and with
it every clipped step. One rounding of a float32 is 6e-8.
"""

from __future__ import annotations

import pytest

from diptych.config.load import load_config
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from layer_jobs import clipped

BOUND = 3e-7  # measured: 1.0e-7 PyTorch, 3.8e-8 Jittor; of sums in float32, up to 1.5e-4


def shapes(preset, *changes):
    table = parameter_table(make_plan(load_config(preset, list(changes))))
    return [p.shape for p in table.values()]


def test_the_clip_factor_is_that_of_float64(panel):
    check(panel, shapes("tiny", "model.ch=128"))


@pytest.mark.slow
def test_the_clip_factor_is_that_of_float64_for_36_million_gradients(panel):
    check(panel, shapes("cifar10"))


def check(panel, sizes):
    norm, factor, truth = panel.call(clipped, panel.name, sizes)
    assert truth > 100.0
    assert norm == pytest.approx(truth, rel=BOUND)
    assert factor == pytest.approx(100.0 / (truth + 1e-6), rel=BOUND)
