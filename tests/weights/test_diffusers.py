"""Each solver against the schedulers of Hugging Face diffusers, step by step, from the same noise.

In float64 the two agree to rounding, so the formulas are the same; in float32 to float32 rounding.
If they differ, the test states the difference and shows that there is no other:

- 3M of DPMSolverMultistepScheduler halves the curvature of its parabola (see `solvers/dpmpp.py`).
- PNDMScheduler's Runge-Kutta start misses the middle of a step of odd length; even steps agree.
- Heun and Euler keep x / alpha and start from sigma_max / alpha-scaled noise; the numbers are
  compared after multiplying with alpha.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import diffusers_jobs
from conftest import Panel
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import CLEAN, Level, make_schedule, make_spacing
from diptych.sampling.solvers import (
    Ddim,
    Ddpm,
    Deis,
    DpmSolverPP,
    DpmSolverPPSde,
    Euler,
    Heun,
    Plms,
    Pndm,
    Solver,
    Step,
    UniPC,
    dynamic_threshold,
    limited,
    solve,
)
from diptych.sampling.solvers.wrappers import image_limited
from published import Published3M
from toy_networks import bold_eps, toy_eps

pytestmark = pytest.mark.torch
TABLE = make_schedule(DiffusionConfig())
SHAPE = (2, 1, 3, 3)


def start(dtype: Any, steps: int) -> tuple[Any, list[Any]]:
    """The first noise and one more for each step."""
    random = np.random.default_rng(5)
    return (
        random.standard_normal(SHAPE).astype(dtype),
        [random.standard_normal(SHAPE).astype(dtype) for _ in range(steps)],
    )


def denoise(x: Any, level: Level) -> Any:
    return toy_eps(x, float(level.t))


def bold(x: Any, level: Level) -> Any:
    return bold_eps(x, float(level.t))


def ours(
    solver: Solver, spacing: str, steps: int, dtype: Any, predict: Callable[..., Any] = denoise
) -> list[Any]:
    """x after each step."""
    x, noises = start(dtype, steps)
    levels = [TABLE.level(t) for t in make_spacing(spacing, steps, 1000)[::-1]] + [CLEAN]
    seen: list[Any] = []
    solve(solver, predict, x, levels, lambda k: noises[k], lambda k, _, x: seen.append(x))
    return seen


@dataclass(frozen=True)
class Pair:
    """One of our solvers and the scheduler, with settings, that should be the same."""

    solver: Solver
    name: str
    settings: dict[str, Any]
    step: dict[str, Any]
    spacing: str = "trailing"
    # The index of the network call that ends step k of S.
    calls: Callable[[int, int], int] = lambda k, steps: k


def pair(solver: Solver, name: str, spacing: str = "trailing", **settings: Any) -> Pair:
    theirs = {"uniform": "leading", "trailing": "trailing"}[spacing]
    return Pair(solver, name, {"timestep_spacing": theirs, **settings}, {}, spacing)


FREE = {"clip_sample": False}
PAIRS = {
    "ddim": pair(Ddim(), "DDIMScheduler", "uniform", **FREE),
    "ddim-trailing": pair(Ddim(), "DDIMScheduler", **FREE),
    "ddim-eta": Pair(
        Ddim(0.6), "DDIMScheduler", {"timestep_spacing": "leading", **FREE}, {"eta": 0.6}, "uniform"
    ),
    "ddpm-small": pair(
        Ddpm("small"), "DDPMScheduler", "uniform", variance_type="fixed_small", **FREE
    ),
    "ddpm-large": pair(
        Ddpm("large"), "DDPMScheduler", "uniform", variance_type="fixed_large", **FREE
    ),
    "euler": pair(Euler(), "EulerDiscreteScheduler"),
    "heun": Pair(
        Heun(),
        "HeunDiscreteScheduler",
        {"timestep_spacing": "trailing"},
        {},
        calls=lambda k, steps: min(2 * k + 1, 2 * steps - 2),
    ),
    "plms": Pair(
        Plms(),
        "PNDMScheduler",
        {"timestep_spacing": "leading", "skip_prk_steps": True, "set_alpha_to_one": True},
        {},
        "uniform",
        calls=lambda k, steps: k + 1,
    ),
    "pndm": Pair(
        Pndm(TABLE.level),
        "PNDMScheduler",
        {"timestep_spacing": "leading", "set_alpha_to_one": True},
        {},
        "uniform",
        calls=lambda k, steps: 4 * k + 3 if k < 3 else k + 9,
    ),
    "dpmpp-2": pair(DpmSolverPP(2), "DPMSolverMultistepScheduler"),
    "dpmpp-sde": pair(
        DpmSolverPPSde(), "DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++"
    ),
    "unipc-2": pair(UniPC(2), "UniPCMultistepScheduler"),
    "unipc-3": pair(UniPC(3), "UniPCMultistepScheduler", solver_order=3),
    "unipc-2-uncorrected": pair(
        UniPC(2, correct=False), "UniPCMultistepScheduler", disable_corrector=list(range(30))
    ),
}
# The largest difference of a step over its largest pixel. Measured: 4e-15 and 4e-6.
BOUND = {np.float64: 4e-14, np.float32: 2e-5}


def theirs(panel: Panel, case: Pair, steps: int, dtype: Any, network: str = "mild") -> list[Any]:
    """x after each step, from diffusers."""
    x, noises = start(dtype, steps)
    found = panel.call(
        diffusers_jobs.trajectory, case.name, steps, x, case.settings, noises, case.step, network
    )
    images = [found["images"][case.calls(k, steps)] for k in range(steps)]
    if case.name in diffusers_jobs.SCALED:
        after = make_spacing(case.spacing, steps, 1000)[::-1][1:]
        scales = [(1 + found["ratios"][t] ** 2) ** -0.5 for t in after] + [1.0]
        images = [scale * x for scale, x in zip(scales, images, strict=True)]
    return images


def apart(a: list[Any], b: list[Any]) -> float:
    """The largest relative difference over all steps."""
    assert len(a) == len(b)
    return max(float(np.abs(x - y).max() / np.abs(y).max()) for x, y in zip(a, b, strict=True))


@pytest.fixture
def torch(panels: dict[str, Panel]) -> Panel:
    """The process that holds PyTorch."""
    if importlib.util.find_spec("diffusers") is None:
        pytest.skip("diffusers is not installed")
    if "torch" not in panels:
        pytest.skip("torch is not installed")
    return panels["torch"]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("steps", [10, 20])
@pytest.mark.parametrize("name", PAIRS)
def test_every_step_is_that_of_diffusers(torch: Panel, name: str, steps: int, dtype: Any) -> None:
    case = PAIRS[name]
    mine = ours(case.solver, case.spacing, steps, dtype)
    assert apart(mine, theirs(torch, case, steps, dtype)) < BOUND[dtype]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_s_steps_between_noisy_levels_are_those_of_diffusers(torch: Panel, order: int) -> None:
    """Its scheduler ends at the level of t=0; ours goes on to the clean image.

    It integrates by differences of logarithms, which cancel; measured: 5e-14.
    """
    case = pair(Deis(order), "DEISMultistepScheduler", solver_order=order)
    for steps in (10, 20):
        mine = ours(case.solver, case.spacing, steps, np.float64)
        assert apart(mine[:-1], theirs(torch, case, steps, np.float64)[:-1]) < 2e-13


@dataclass(frozen=True)
class Faulty(Solver):
    """A solver whose every step is wrong by one part in ten thousand of one coefficient."""

    solver: Solver

    def calls(self, steps: int) -> int:
        return self.solver.calls(steps)

    def noise_scale(self, now: Level, after: Level) -> float:
        return self.solver.noise_scale(now, after)

    def step(self, s: Step[Any]) -> Any:
        return self.solver.step(replace(s, denoise=lambda *a: 1.0001 * s.denoise(*a)))


@pytest.mark.parametrize("name", ["ddim", "ddpm-large", "heun", "pndm", "dpmpp-sde", "unipc-3"])
def test_a_planted_fault_is_seen_in_both_precisions(torch: Panel, name: str) -> None:
    for dtype, bound in BOUND.items():
        case = PAIRS[name]
        mine = ours(Faulty(case.solver), case.spacing, 10, dtype)
        assert apart(mine, theirs(torch, case, 10, dtype)) > bound


# Where the two differ


def test_3m_of_diffusers_is_ours_with_half_the_curvature(torch: Panel) -> None:
    """tests/sampling/test_orders.py measures which of the two is of third order."""
    case = pair(Published3M(), "DPMSolverMultistepScheduler", solver_order=3)
    for steps in (10, 20):  # below 15 steps, both end on lower orders
        published = ours(Published3M(), "trailing", steps, np.float64)
        assert apart(published, theirs(torch, case, steps, np.float64)) < 4e-14
        whole = ours(Published3M(curvature=2), "trailing", steps, np.float64)
        assert apart(ours(DpmSolverPP(3), "trailing", steps, np.float64), whole) < 4e-14
        assert apart(whole, published) > 1e-3


def test_a_step_of_odd_length_has_its_middle_rounded_up(torch: Panel) -> None:
    """T // S = 125: diffusers asks the network at t + 62 for images that it moved to t + 63."""
    case = PAIRS["pndm"]
    mine = ours(case.solver, "uniform", 8, np.float64)
    x, _ = start(np.float64, 8)
    found = torch.call(diffusers_jobs.trajectory, case.name, 8, x, case.settings)
    assert found["timesteps"][:3] == [875, 812, 812] and 875 - 125 // 2 == 813
    assert 1e-6 < apart(mine, theirs(torch, case, 8, np.float64)) < 1e-2


# Limits on the predicted image

CLIPPED = {
    "ddim": Pair(
        Ddim(),
        "DDIMScheduler",
        {"timestep_spacing": "leading"},
        {"use_clipped_model_output": True},
        "uniform",
    ),
    "ddpm": pair(Ddpm("small"), "DDPMScheduler", "uniform"),
    "dpmpp": pair(DpmSolverPP(2), "DPMSolverMultistepScheduler", thresholding=True),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_clipping_is_that_of_diffusers(torch: Panel, name: str) -> None:
    """With a largest size of 1, diffusers' thresholding is clipping."""
    case = CLIPPED[name]
    clipped = limited(bold, lambda x0: x0.clip(-1, 1))
    mine = ours(case.solver, case.spacing, 10, np.float64, clipped)
    assert apart(mine, theirs(torch, case, 10, np.float64, "bold")) < 4e-14
    assert apart(mine, ours(case.solver, case.spacing, 10, np.float64, bold)) > 1e-2


def test_ddim_of_diffusers_clips_the_image_and_keeps_the_noise(torch: Panel) -> None:
    case = pair(Ddim(), "DDIMScheduler", "uniform")
    kept = ours(Ddim(), "uniform", 10, np.float64, image_limited(bold, lambda x0: x0.clip(-1, 1)))
    assert apart(kept, theirs(torch, case, 10, np.float64, "bold")) < 4e-14
    both = ours(Ddim(), "uniform", 10, np.float64, limited(bold, lambda x0: x0.clip(-1, 1)))
    assert apart(kept, both) > 1e-2


def test_dynamic_thresholding_is_that_of_diffusers(torch: Panel) -> None:
    case = pair(
        DpmSolverPP(2),
        "DPMSolverMultistepScheduler",
        thresholding=True,
        dynamic_thresholding_ratio=0.8,
        sample_max_value=1e9,
    )
    limit = limited(bold, lambda x0: dynamic_threshold(x0, 0.8))
    mine = ours(case.solver, case.spacing, 10, np.float64, limit)
    assert apart(mine, theirs(torch, case, 10, np.float64, "bold")) < 4e-14
    other = limited(bold, lambda x0: dynamic_threshold(x0, 0.9))
    assert apart(mine, ours(case.solver, case.spacing, 10, np.float64, other)) > 1e-3
