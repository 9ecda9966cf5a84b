"""`train.checkpoint_activations`: the same steps in less memory."""

from __future__ import annotations

import numpy as np
import pytest

import accumulate_jobs
import captured_jobs
import recompute_jobs as jobs
from conftest import Panel
from diptych.errors import UserError


def same(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> bool:
    """True if all arrays have the same bits."""
    return all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in theirs)


@pytest.mark.parametrize("noise", ["host", "keyed"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_steps_have_the_same_bits(panel, noise, accumulate):
    """Losses, norms, gradients and weights, with dropout, classes and attention."""
    changes = [f"train.noise={noise}", f"train.accumulate={accumulate}"]
    numbers, gradients, weights = panel.call(jobs.steps, panel.name, jobs.settings(*changes))
    found = panel.call(jobs.steps, panel.name, jobs.settings(*changes, jobs.AGAIN))
    assert np.isfinite(numbers).all() and all(g.any() for g in gradients.values())
    assert found[0] == numbers
    assert same(found[1], gradients) and same(found[2], weights)


def test_a_forgotten_mask_is_seen(panel):
    """Planted: the second run of a block has no dropout; the loss is still right."""
    config = jobs.settings(jobs.AGAIN)
    numbers, gradients, _ = panel.call(jobs.steps, panel.name, config)
    found, theirs, _ = panel.call(jobs.steps, panel.name, config, True)
    assert found[0] == numbers[0] and not same(theirs, gradients)


def test_each_rank_has_its_share(panel):
    config = jobs.settings("model.num_classes=0", "train.accumulate=2")
    again = jobs.settings("model.num_classes=0", "train.accumulate=2", jobs.AGAIN)
    plain, found = (
        panel.call(accumulate_jobs.steps, panel.name, each, 2) for each in (config, again)
    )
    for (loss, gradients, _), (ours, theirs, _) in zip(plain, found, strict=True):
        assert ours == loss and same(theirs, gradients)


def test_a_run_can_go_on_with_it(panel, tmp_path):
    """For example one that ran out of memory: bits and identity stay."""
    plain, again = (
        accumulate_jobs.settings("train.noise=keyed", "train.checkpoint_every=2", *more)
        for more in ([], [jobs.AGAIN])
    )
    trained, call = accumulate_jobs.trained, panel.call
    whole = call(trained, panel.name, plain, tmp_path / "whole", [4])
    call(trained, panel.name, plain, tmp_path / "parts", [2])
    assert call(trained, panel.name, again, tmp_path / "parts", [4], begun=True) == whole
    assert again.identity() == plain.identity()


@pytest.mark.torch
def test_bfloat16_has_the_same_bits(panels):
    """The second run is under autocast, too."""
    changes = ["train.precision=bf16", "train.noise=keyed"]
    plain, found = (
        panels["torch"].call(jobs.steps, "torch", jobs.settings(*changes, *more))
        for more in ([], [jobs.AGAIN])
    )
    exact = panels["torch"].call(jobs.steps, "torch", jobs.settings("train.noise=keyed"))
    assert found[0] == plain[0] != exact[0]
    assert same(found[1], plain[1]) and same(found[2], plain[2])


@pytest.mark.torch
def test_replayed_steps_are_the_steps(panels):
    """In a rehearsal of CUDA graphs; CUDA itself was not tried."""
    config = jobs.settings("train.noise=keyed", jobs.AGAIN)
    call = panels["torch"].call
    losses, weights, _ = call(captured_jobs.steps, config, False)
    ours, theirs, calls = call(captured_jobs.steps, config, True)
    assert ours == losses and same(theirs, weights) and calls["replayed"] >= 4


def test_a_step_needs_less_memory(panel):
    """Memory for the backward pass falls to a third; Jittor's peak below two thirds."""
    changes = ["model.num_res_blocks=2", "train.batch_size=64", "train.noise=keyed"]
    configs = [jobs.settings(*changes, jobs.AGAIN), jobs.settings(*changes)]
    fresh = Panel(panel.name)  # of a process that did other work the peak may be that work's
    try:
        again, plain = fresh.call(jobs.memory, panel.name, configs)
    finally:
        fresh.pool.shutdown()
    assert 0 < again < {"torch": 0.35, "jittor": 0.6}[panel.name] * plain


def test_compiling_is_refused():
    with pytest.raises(UserError, match="compile and checkpoint_activations exclude each other"):
        jobs.settings("train.compile=true", jobs.AGAIN)


def test_a_network_of_one_s_own_is_refused(panel, tmp_path):
    with pytest.raises(UserError, match="the blocks of a network of your own are not known"):
        panel.call(jobs.train_own, panel.name, tmp_path / "run")
    assert not (tmp_path / "run").exists()
