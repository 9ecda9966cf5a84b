"""`train.compile`: the same numbers up to rounding, by as many graphs as there are sizes."""

from __future__ import annotations

import pytest

import accumulate_jobs
import compile_jobs as jobs
from diptych.errors import UserError

LOSS, NORM = 1e-6, 1e-5  # relative


@pytest.mark.torch
def test_a_compiled_step_has_the_numbers_of_one_that_is_not(panels):
    """With dropout and attention, and a last batch that is smaller."""
    plain, compiled = (panels["torch"].call(jobs.steps, each) for each in (False, True))
    assert (plain["graphs"], compiled["graphs"], compiled["cuts"]) == (0, 2, 0)
    assert compiled["names"] == plain["names"]
    loss, norm = abs(compiled["found"] / plain["found"] - 1).max(0)
    assert loss < LOSS and norm < NORM


@pytest.mark.torch
def test_folds_are_made_where_the_weights_are(panels):
    """With the key that a call looks up, else their making is compiled, and all of it again."""
    assert panels["torch"].call(jobs.folds_before_the_first_call) == ["meta"]


@pytest.mark.torch
def test_a_network_of_ones_own_may_be_cut(panels):
    plain, compiled = (panels["torch"].call(jobs.own, each) for each in (False, True))
    assert compiled == pytest.approx(plain, rel=LOSS)


@pytest.mark.torch
def test_without_a_compiler_it_is_refused(panels):
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and finds none; install g\+\+"):
        panels["torch"].call(jobs.without_compiler)


@pytest.mark.jittor
def test_jittor_refuses_it_by_name(panels, tmp_path):
    config = accumulate_jobs.settings("train.compile=true")
    with pytest.raises(UserError, match=r"train\.compile: only applies to PyTorch; Jittor"):
        panels["jittor"].call(accumulate_jobs.trained, "jittor", config, tmp_path / "run", [1])
    assert not (tmp_path / "run").exists()
