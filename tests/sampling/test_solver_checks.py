"""Settings, levels and arrays that `solve` and `invert` refuse, before or in the first step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import gaussian
from diptych.config.load import DiffusionConfig
from diptych.diffusion.schedule import CLEAN, Level, make_schedule
from diptych.diffusion.timesteps import ALL_SPACINGS, REPEATING, choose_timesteps
from diptych.errors import UserError
from diptych.sampling.solvers import (
    Ddim,
    Ddpm,
    Deis,
    Denoiser,
    DpmSolverPP,
    DpmSolverPPSde,
    Heun,
    Needs,
    Plms,
    Pndm,
    Solver,
    Step,
    UniPC,
    dynamic_threshold,
    from_v,
    from_x0,
    invert,
    limited,
    solve,
)
from diptych.sampling.solvers.kinds import KINDS

TABLE = make_schedule(DiffusionConfig())
ZERO = make_schedule(DiffusionConfig(objective="v", zero_terminal_snr=True))
X = np.random.default_rng(0).standard_normal((4, 1, 3, 3))


def along(steps: int, spacing: str = "uniform", table: Any = TABLE) -> list[Level]:
    return [table.level(t) for t in choose_timesteps(spacing, steps, table)[::-1]] + [CLEAN]


def zeros(k: int) -> Any:
    return np.zeros_like(X)


def refusal(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        act()
    assert "\n" not in str(found.value)


# Settings


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Ddim(-1.0), "eta is -1.0; it must be 0 or more"),
        (lambda: Ddim(float("nan")), "eta is nan"),
        (lambda: Ddim(float("inf")), "eta is inf"),
        (lambda: Ddpm("lrge"), "variance 'lrge' is not known; did you mean 'large'"),  # type: ignore[arg-type]
        (lambda: DpmSolverPP(0), "DpmSolverPP has orders 1 to 3, not 0"),
        (lambda: DpmSolverPP(5), "DpmSolverPP has orders 1 to 3, not 5"),
        (lambda: DpmSolverPPSde(3), "DpmSolverPPSde has orders 1 to 2, not 3"),
        (lambda: UniPC(0), "UniPC has orders 1 to 3, not 0"),
        (lambda: UniPC(7), "UniPC has orders 1 to 3, not 7"),
    ],
)
def test_settings_that_no_rule_has_are_refused(make: Callable[[], Any], message: str) -> None:
    refusal(make, message)


# Levels


@pytest.mark.parametrize(
    "solver, levels, message",
    [
        (Ddim(), [], "levels is empty; Ddim needs those of the way from noisy to clean"),
        (Ddim(), [900, 500, 0], r"levels\[0\] is 900; it must be a Level"),
        (Ddim(), [Level(5, float("nan"), 0.5), CLEAN], r"levels\[0\] is Level\(t=5, alpha=nan"),
        (Ddim(), along(5)[::-1], "levels go from t=-1 to t=0, which is noisier; .* invert the"),
        (DpmSolverPP(), along(5)[::-1], "DpmSolverPP takes them from noisy to clean"),
        (Ddim(), [TABLE.level(9), CLEAN, CLEAN], r"levels come twice \(t=-1, t=-1\)"),
        (UniPC(), along(50, "official-quad"), r"come twice \(t=0, t=0\), which UniPC cannot take"),
        (Heun(), along(50, "official-quad"), "which Heun cannot take"),
        (DpmSolverPP(3), along(2), "DpmSolverPP needs 3 steps or more, not 2"),
        (DpmSolverPPSde(), along(1), "DpmSolverPPSde needs 2 steps or more, not 1"),
        (UniPC(3), along(2), "UniPC needs 3 steps or more, not 2"),
        (Plms(), along(1), "Plms needs 2 steps or more, not 1"),
        (Pndm(TABLE.level), along(3), "Pndm needs 4 steps or more, not 3"),
        (Plms(), along(10, "logsnr"), "Plms needs steps of equal length"),
        (Pndm(TABLE.level), along(10, "quad"), "Pndm needs steps of equal length"),
    ],
)
def test_levels_that_a_rule_cannot_walk_are_refused_before_the_first_call(
    solver: Any, levels: Any, message: str
) -> None:
    asked: list[Level] = []

    def denoise(x: Any, level: Level) -> Any:
        asked.append(level)
        return 0.1 * x

    refusal(lambda: solve(solver, denoise, X, levels, zeros), message)
    assert not asked


def test_levels_that_can_be_walked_are() -> None:
    """Repeats where no rule divides by a step; steps that rounding made unequal; one level."""
    for solver in (Ddim(), Ddim(0.5), Ddpm("small"), Ddpm("large")):
        out = solve(solver, gaussian.denoise, X, along(50, "official-quad"), zeros)
        assert np.isfinite(out).all()
    for steps in (7, 13, 700):
        for spacing in ("uniform", "trailing"):
            for solver in (Plms(), Pndm(TABLE.level)):
                solve(solver, gaussian.denoise, X, along(steps, spacing))
    assert solve(Plms(), gaussian.denoise, X, [CLEAN]) is X
    assert invert(gaussian.denoise, X, [CLEAN]) is X


def test_equal_steps_of_sigma_over_alpha_are_equal_steps() -> None:
    """At timesteps that are not equally far apart."""

    def at(ratio: float, t: int) -> Level:
        alpha = 1.0 / np.sqrt(1.0 + ratio * ratio)
        return Level(t, float(alpha), float(ratio * alpha))

    ratios, times = np.linspace(5.0, 0.5, 10), [900, 500, 300, 200, 100, 50, 20, 9, 4, 0]
    levels = [at(*pair) for pair in zip(ratios, times, strict=True)]
    solve(Plms(), gaussian.denoise, X, [*levels, CLEAN])
    del levels[4]
    refusal(lambda: solve(Plms(), gaussian.denoise, X, [*levels, CLEAN]), "equal length")


@dataclass(frozen=True)
class Own(Solver):
    """A rule of a user's own; it keeps the `denoise` of each step."""

    seen: list[Any]

    def step(self, s: Step[Any]) -> Any:
        self.seen.append(s.denoise)
        return 0.5 * s.x


class Repeating(Own):
    needs = Needs(repeats=True)


def test_a_rule_of_ones_own_is_its_step_and_what_it_needs() -> None:
    """It is given the `denoise` itself after the first step: nothing is added to its calls."""
    own = Repeating([])
    solve(own, gaussian.denoise, X, along(50, "official-quad"))
    assert own.seen[0] is not gaussian.denoise
    assert all(denoise is gaussian.denoise for denoise in own.seen[1:]) and len(own.seen) == 50
    for backwards in (own, Own([])):
        wrong = along(3)[::-1]
        refusal(lambda: solve(backwards, gaussian.denoise, X, wrong), "takes them from noisy")  # noqa: B023
    twice = along(50, "official-quad")
    refusal(lambda: solve(Own([]), gaussian.denoise, X, twice), "come twice .* Own cannot take")


def test_the_defaults_of_a_rule_are_those_of_a_deterministic_one() -> None:
    own = Own([])
    assert own.needs == Needs() and own.calls(7) == 7
    assert own.noise_scale(TABLE.level(9), TABLE.level(3)) == 0.0
    with pytest.raises(TypeError, match="abstract"):
        Solver()  # type: ignore[abstract]


def test_what_is_no_solver_is_refused_by_name() -> None:
    refusal(lambda: solve("ddim", gaussian.denoise, X, along(3)), "str is not a solver; give one")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", KINDS)
def test_a_name_s_limits_are_those_of_its_rule(name: str) -> None:
    kind = KINDS[name]
    for order in kind.orders or (0,):
        assert kind.needs(order) == kind.make(0.0, order, TABLE).needs
    for spacing in ALL_SPACINGS:
        levels = along(50, spacing)
        try:
            solve(
                kind.make(0.0, (kind.orders or (0,))[0], TABLE), gaussian.denoise, X, levels, zeros
            )
            taken = True
        except UserError:
            taken = False
        named = kind.repeats if spacing in REPEATING else spacing in (kind.spacings or ALL_SPACINGS)
        assert taken == named, spacing


# Steps and orders


def same(solver: Any, other: Any, steps: int) -> bool:
    def bent(x: Any, level: Level) -> Any:
        return gaussian.denoise(x, level) + 0.1 * np.tanh(x)

    ours, theirs = (solve(s, bent, X, along(steps, "trailing"), zeros) for s in (solver, other))
    return bool(np.abs(ours - theirs).max() < 1e-12)


@pytest.mark.parametrize("make, order", [
    (Deis, 2), (Deis, 3), (DpmSolverPP, 2), (DpmSolverPP, 3), (UniPC, 2), (UniPC, 3),
    (DpmSolverPPSde, 2),
])  # fmt: skip
def test_an_order_is_reached_from_twice_its_steps_less_one_on(make: Any, order: int) -> None:
    for steps in range(order, 2 * order - 1):
        assert same(make(order), make(order - 1), steps)
    assert not same(make(order), make(order - 1), 2 * order - 1)


@pytest.mark.parametrize("solver, least", [
    (DpmSolverPP(1), 1), (DpmSolverPP(2), 3), (DpmSolverPP(3), 4), (DpmSolverPPSde(), 3),
    (UniPC(1), 1), (UniPC(2), 3), (UniPC(3), 4), (Plms(), 3), (Pndm(ZERO.level), 5), (Ddim(), 1),
])  # fmt: skip
def test_the_step_out_of_noise_alone_does_not_count(solver: Any, least: int) -> None:
    denoise = from_v(lambda x, level: 0.1 * x)
    solve(solver, denoise, X, along(least, "trailing", ZERO), zeros)
    for steps in range(1, least):
        levels = along(steps, "trailing", ZERO)
        message = f"needs {least - 1} steps or more after the one out of noise alone"
        refusal(lambda: solve(solver, denoise, X, levels, zeros), message)  # noqa: B023


# Shapes


def few(x: Any, level: Level) -> Any:
    """An answer that would be broadcast in silence."""
    return 0.1 * x[:1, :, :1]


@pytest.mark.parametrize(
    "denoise",
    [
        few,
        from_x0(few),
        from_v(few),
        Denoiser(few, few),
        limited(from_v(few), lambda x0: x0),
        limited(gaussian.denoise, lambda x0: x0[:1]),
        lambda x, level: None,
        lambda x, level: (x,),
    ],
)
def test_an_answer_shaped_otherwise_is_refused(denoise: Any) -> None:
    for solver in (Ddim(), DpmSolverPP(), UniPC(), Heun()):
        refusal(lambda: solve(solver, denoise, X, along(5)), r"images have shape \(4, 1, 3, 3\)")  # noqa: B023
    refusal(lambda: invert(denoise, X, along(5)[::-1]), r"images have shape \(4, 1, 3, 3\)")


def test_noise_shaped_otherwise_is_refused() -> None:
    for noise in (lambda k: X[:1], lambda k: np.zeros(3)):
        refusal(
            lambda: solve(Ddpm(), gaussian.denoise, X, along(5), noise),  # noqa: B023
            "the noise is a ndarray of shape",
        )


# Inversion and thresholds


def test_an_inversion_that_cannot_be_is_refused() -> None:
    for levels, refine, message in (
        (along(5), 0, "which is cleaner; invert takes them from clean to noisy, solve the other"),
        ([], 0, "levels is empty; invert needs those of the way from clean to noisy"),
        (along(50, "official-quad")[::-1], 0, "come twice"),
        (along(5)[::-1], -1, "refine is -1"),
    ):
        refusal(lambda: invert(gaussian.denoise, X, levels, refine), message)  # noqa: B023


@pytest.mark.parametrize("quantile", [0.0, -0.5, 1.5, float("nan")])
def test_a_threshold_is_a_quantile(quantile: float) -> None:
    refusal(lambda: dynamic_threshold(X, quantile), f"threshold is {quantile}; it is a quantile")


def test_a_threshold_of_other_arrays_is_one_line() -> None:
    class Tensor:
        pass

    refusal(
        lambda: dynamic_threshold(Tensor(), 0.9),  # type: ignore[arg-type]
        "dynamic_threshold takes a NumPy array, not .*Tensor; give it x0.numpy()",
    )


def test_a_threshold_takes_each_image_for_itself_in_any_shape() -> None:
    whole = dynamic_threshold(3 * X, 0.8)
    assert np.array_equal(dynamic_threshold(3 * X.reshape(4, 9), 0.8), whole.reshape(4, 9))
    assert np.array_equal(dynamic_threshold(3 * X[1:2], 0.8), whole[1:2])
