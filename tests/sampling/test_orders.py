"""Every solver converges at its order to the exact trajectory of a Gaussian mixture.

The levels isolate the update rule: the first step is short if a solver starts at a lower order, and
solvers that end at lower orders do so after the level where the error is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import gaussian
import mixture
from diptych.diffusion.schedule import Level
from diptych.sampling.solvers import (
    Ddim,
    Ddpm,
    Deis,
    DpmSolverPP,
    DpmSolverPPSde,
    Euler,
    Heun,
    Ipndm,
    Plms,
    Pndm,
    Solver,
    Step,
    UniPC,
    solve,
)
from published import Published3M

STEPS = (80, 160, 320)
LATE = (320, 640, 1280)  # for an order that is approached slowly


def errors_by_log_snr(solver: Solver, steps: tuple[int, ...] = STEPS) -> list[float]:
    return [mixture.error(solver, mixture.by_log_snr(n, 4), 4) for n in steps]


# (solver, order); measured within 0.03 of it.
BY_LOG_SNR: dict[str, tuple[Solver, int]] = {
    "ddim": (Ddim(), 1),
    "euler": (Euler(), 1),
    "heun": (Heun(), 2),
    "deis-1": (Deis(1), 1),
    "deis-2": (Deis(2), 2),
    "deis-3": (Deis(3), 3),
    "dpmpp-1": (DpmSolverPP(1), 1),
    "dpmpp-2": (DpmSolverPP(2), 2),
    "dpmpp-3": (DpmSolverPP(3), 3),
    "unipc-1": (UniPC(1), 2),
    "unipc-2": (UniPC(2), 3),
    "unipc-3": (UniPC(3), 4),
    "unipc-2-uncorrected": (UniPC(2, correct=False), 2),
    "unipc-3-uncorrected": (UniPC(3, correct=False), 3),
}


@pytest.mark.parametrize("name", BY_LOG_SNR)
def test_order_on_equal_steps_of_log_snr(name: str) -> None:
    solver, order = BY_LOG_SNR[name]
    errors = errors_by_log_snr(solver, LATE if name == "deis-3" else STEPS)
    assert mixture.orders(errors)[-1] == pytest.approx(order, abs=0.06), errors


def test_the_published_3m_is_of_second_order() -> None:
    """Its curvature is halved; with the whole of it, it is our solver."""
    published, whole = (errors_by_log_snr(Published3M(curvature)) for curvature in (1.0, 2.0))
    assert mixture.orders(published)[-1] == pytest.approx(2, abs=0.06), published
    assert whole == pytest.approx(errors_by_log_snr(DpmSolverPP(3)), rel=1e-6)
    assert published[0] > 5 * whole[0]


@dataclass(frozen=True)
class Started(Solver):
    """iPNDM with exact first steps, which it takes at lower orders by itself."""

    solver: Ipndm

    def step(self, s: Step[Any]) -> Any:
        x = self.solver.step(s)
        starting = len(s.memory.past) < self.solver.order
        return mixture.exact(s.x, s.now, s.after) if starting else x


# The order of PLMS on levels equally spaced in sigma / alpha is that of its start.
BY_RATIO: dict[str, tuple[Callable[[int], Solver], tuple[int, ...], int]] = {
    "plms": (lambda n: Plms(), (640, 1280, 2560), 3),
    "pndm": (lambda n: Pndm(lambda t: mixture.by_ratio_at(n, t)), (160, 320, 640), 4),
    "heun": (lambda n: Heun(), STEPS, 2),
    "ipndm-1": (lambda n: Ipndm(1), STEPS, 1),
    "ipndm-2": (lambda n: Started(Ipndm(2)), STEPS, 2),
    "ipndm-3": (lambda n: Started(Ipndm(3)), STEPS, 3),
    "ipndm-4": (lambda n: Started(Ipndm(4)), (160, 320, 640), 4),
    "ipndm-4, its own start": (lambda n: Ipndm(), (640, 1280, 2560), 2),
}


@pytest.mark.parametrize("name", BY_RATIO)
def test_order_on_equal_steps_of_sigma_over_alpha(name: str) -> None:
    make, steps, order = BY_RATIO[name]
    errors = [mixture.error(make(n), mixture.by_ratio(n)) for n in steps]
    assert mixture.orders(errors)[-1] == pytest.approx(order, abs=0.2), errors


def test_plms_is_of_second_order_on_equal_steps_of_time() -> None:
    errors = [mixture.error(Plms(), mixture.by_time(n)) for n in (160, 320, 640)]
    assert mixture.orders(errors)[-1] == pytest.approx(2, abs=0.1), errors


# Solvers with noise: on Gaussian data every step is linear, so that images as coefficients of the
# first noise and of each step's noise give the variance at the end without sampling.


def variance_error(solver: Solver, steps: int) -> float:
    levels = [mixture.at(g) for g in np.linspace(mixture.HIGH, mixture.LOW, steps + 1)]
    noises = np.eye(steps + 1)
    first = noises[0] * gaussian.variance(levels[0]) ** 0.5
    x = solve(solver, gaussian.denoise, first, levels, lambda k: noises[k + 1])
    return abs(float((x**2).sum()) / gaussian.variance(levels[-1]) - 1)


@pytest.mark.parametrize(
    "solver, order",
    [
        (Ddim(1.0), 1),
        (Ddpm("small"), 1),
        (Ddpm("large"), 1),
        (DpmSolverPPSde(1), 1),
        (DpmSolverPPSde(), 2),
    ],
)
def test_the_variance_with_noise_converges_at_its_order(solver: Solver, order: int) -> None:
    errors = [variance_error(solver, n) for n in STEPS]
    assert mixture.orders(errors)[-1] == pytest.approx(order, abs=0.06), errors


# The tests above can fail


@dataclass(frozen=True)
class Faulty(Solver):
    """A solver whose memory or predictions are wrong in one way."""

    solver: Solver
    fault: str

    def calls(self, steps: int) -> int:
        return self.solver.calls(steps)

    def noise_scale(self, now: Level, after: Level) -> float:
        scale = self.solver.noise_scale(now, after)
        return scale * 1.001 if self.fault == "noise too large" else scale

    def step(self, s: Step[Any]) -> Any:
        asked, noise, memory = [0], s.noise, s.memory

        def predict(x: Any, level: Level) -> Any:
            asked[0] += 1
            if self.fault == "second call at the first level" and asked[0] == 2:
                return s.denoise(x, s.now)
            return s.denoise(x, level)

        if self.fault == "forgets" and len(memory.past) > 1:
            memory.past = memory.past[-1:]
        if self.fault == "last one a hundredth off" and len(memory.past) > 1:
            level, prediction = memory.past[-1]
            memory.past[-1] = (level, 1.01 * prediction)
        if noise is not None and self.fault == "noise too large":
            noise = 1.05 * noise
        return self.solver.step(replace(s, denoise=predict, noise=noise))


@pytest.mark.parametrize(
    "name, fault",
    [
        ("heun", "second call at the first level"),
        ("dpmpp-2", "last one a hundredth off"),
        ("dpmpp-3", "last one a hundredth off"),
        ("dpmpp-3", "forgets"),
        ("deis-2", "last one a hundredth off"),
        ("deis-3", "forgets"),
        ("unipc-3", "forgets"),
        ("unipc-2", "last one a hundredth off"),
    ],
)
def test_a_planted_fault_lowers_the_order(name: str, fault: str) -> None:
    solver, order = BY_LOG_SNR[name]
    assert mixture.orders(errors_by_log_snr(Faulty(solver, fault)))[-1] < order - 0.3


@pytest.mark.parametrize("name", ["plms", "pndm"])
def test_a_planted_fault_in_plms_lowers_its_order(name: str) -> None:
    make, steps, order = BY_RATIO[name]
    fault = "last one a hundredth off"
    errors = [mixture.error(Faulty(make(n), fault), mixture.by_ratio(n)) for n in steps]
    assert mixture.orders(errors)[-1] < order - 0.3, errors


@pytest.mark.parametrize("solver, order", [(Ddpm("large"), 1), (DpmSolverPPSde(), 2)])
def test_noise_a_little_too_large_is_seen_in_the_variance(solver: Solver, order: int) -> None:
    errors = [variance_error(Faulty(solver, "noise too large"), n) for n in STEPS]
    assert mixture.orders(errors)[-1] < order - 0.3, errors
