"""Replayed steps have the bits of plain ones; what CUDA itself does is checked on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

import accumulate_jobs as jobs
import captured_jobs

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("noise", ["host", "keyed"])
def test_replayed_steps_are_the_steps(panels, noise, accumulate):
    """A graph for each set of shapes and divisor; a loss that is read late is its step's own."""
    config = jobs.settings(f"train.noise={noise}", f"train.accumulate={accumulate}")
    call = panels["torch"].call
    losses, weights, none = call(captured_jobs.steps, config, False)
    ours, theirs, calls = call(captured_jobs.steps, config, True)
    assert ours == losses and len(set(losses)) == len(losses)
    assert all(np.array_equal(theirs[name], weights[name]) for name in weights)
    assert set(none.values()) == {0}
    assert calls["captured"] >= 2 and calls["replayed"] >= 4
    assert calls["aside"] + calls["replayed"] >= captured_jobs.STEPS


@pytest.mark.parametrize("accumulate", [1, 2])
def test_what_a_replay_overwrites_would_be_seen(panels, accumulate):
    """Planted: a loss, or the first micro-batch's gradients, left where the next call writes."""
    config = jobs.settings("train.noise=keyed", f"train.accumulate={accumulate}")
    call, kept = panels["torch"].call, accumulate - 1
    losses, weights, _ = call(captured_jobs.steps, config, False)
    ours, theirs, _ = call(captured_jobs.steps, config, True, kept)
    equal = all(np.array_equal(theirs[name], weights[name]) for name in weights)
    assert (ours != losses) if accumulate == 1 else not equal


def test_memory_of_a_graph_is_not_free(panels):
    """Activations of replayed steps lie in a pool that nothing else may use."""
    assert panels["torch"].call(captured_jobs.free_memory) == 5 + 70
