"""Solvers on the arrays of both backends, and the documented example."""

from __future__ import annotations

from typing import Any

import numpy as np

import solver_jobs
from conftest import Panel
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import CLEAN, make_schedule
from diptych.diffusion.timesteps import choose_timesteps
from diptych.sampling.solvers import (
    Ddim,
    Ddpm,
    Deis,
    DpmSolverPP,
    DpmSolverPPSde,
    Heun,
    Ipndm,
    Plms,
    Pndm,
    UniPC,
    solve,
)


def test_the_example_has_ten_lines_and_runs_on_numpy() -> None:
    lines = [line for line in solver_jobs.examples()[0].splitlines() if line.strip()]
    assert len(lines) <= 10
    images = solver_jobs.run_example("numpy")
    assert images.dtype == np.float32 and np.abs(images).max() < 10


def test_the_example_gives_the_same_images_on_a_panel(panel: Panel) -> None:
    images = panel.call(solver_jobs.run_example, panel.name)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, solver_jobs.run_example("numpy"), rtol=2e-5, atol=2e-5)


def test_betas_of_ones_own_give_the_schedule_that_they_are() -> None:
    """The page's betas are those of `linear`, so its Pndm draws what the named one does."""
    table = make_schedule(DiffusionConfig())
    levels = [table.level(t) for t in range(980, -1, -20)] + [CLEAN]
    x, images = solver_jobs.first_noise(), solver_jobs.run_example("numpy", own=True)
    wanted = solve(Pndm(table.level), lambda x, at: solver_jobs.network(x, at.t), x, levels)
    np.testing.assert_allclose(images, wanted, rtol=1e-5, atol=1e-6)


def test_the_page_s_own_rule_is_nearer_to_the_exact_end_than_ddim(panel: Panel) -> None:
    table = make_schedule(DiffusionConfig())
    x, images = (
        solver_jobs.first_noise(),
        panel.call(solver_jobs.run_example, panel.name, rule=True),
    )

    def end(solver: Any, timesteps: list[int]) -> Any:
        levels = [*map(table.level, timesteps), CLEAN]
        return solve(solver, lambda x, at: solver_jobs.network(x, at.t), x, levels)

    exact = end(DpmSolverPP(3), list(range(999, -1, -1)))
    timesteps = choose_timesteps("logsnr", 15, table)[::-1]
    errors = [np.abs(found - exact).max() for found in (images, end(Ddim(), timesteps))]
    assert images.dtype == np.float32 and errors[0] < 0.2 * errors[1], errors


def test_the_pages_thresholding_holds_on_arrays_of_a_panel(panel: Panel) -> None:
    wanted = solver_jobs.run_example("numpy", limit=True)
    free = solver_jobs.run_example("numpy")
    found = panel.call(solver_jobs.run_example, panel.name, limit=True)
    assert found.dtype == np.float32 and np.abs(wanted - free).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_every_rule_gives_the_same_images_on_a_panel(panel: Panel) -> None:
    table = make_schedule(DiffusionConfig())
    levels = [table.level(t) for t in (999, 799, 599, 399, 199)] + [CLEAN]
    solvers: list[Any] = [
        Ddim(0.5), Ddpm("large"), DpmSolverPP(3), DpmSolverPPSde(), Heun(), Plms(), UniPC(3),
        Deis(3), Ipndm(),
    ]  # fmt: skip

    def noise(k: int) -> Any:
        return np.random.default_rng(k).standard_normal((2, 1, 4, 4), np.float32)

    for solver, theirs in zip(
        solvers, panel.call(solver_jobs.run_solvers, panel.name, solvers, levels), strict=True
    ):
        ours = solve(
            solver,
            lambda x, level: solver_jobs.network(x, level.t),
            solver_jobs.first_noise(),
            levels,
            noise,
        )
        np.testing.assert_allclose(theirs, ours, rtol=5e-5, atol=5e-5, err_msg=repr(solver))
