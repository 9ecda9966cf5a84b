"""A mixture of two Gaussians, for which denoiser and trajectory are known in closed form.

x0 ~ sum_i w_i N(m_i, s_i^2)   =>   x_t ~ sum_i w_i N(alpha m_i, v_i)
v_i = alpha^2 s_i^2 + sigma^2
E[eps | x_t] = sigma sum_i p_i(x_t) (x_t - alpha m_i) / v_i,  p_i part i's share of the density

In one dimension the probability flow maps quantiles to quantiles, F_t(x_t) = const, so the exact
trajectory needs no solver: the distribution function is evaluated at one level and inverted at
another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from diptych.diffusion.schedule import Level
from diptych.sampling.solvers import Solver, solve
from diptych.types import Array

W, M, S = np.array([0.3, 0.7]), np.array([-0.7, 0.5]), np.array([0.25, 0.4])
STARTS = np.array([-1.7, -0.6, 0.2, 1.1, 2.1])
HIGH, LOW = math.log(6.0), math.log(0.08)  # log (sigma / alpha) at the ends


def at(log_ratio: float, t: int = 0) -> Level:
    """The level with a given log(sigma / alpha); alpha^2 + sigma^2 = 1."""
    ratio = math.exp(log_ratio)
    alpha = 1.0 / math.sqrt(1.0 + ratio * ratio)
    return Level(t, alpha, ratio * alpha)


def denoise(x: Array, level: Level) -> Array:
    """The exact expectation of the noise, elementwise."""
    variance = (level.alpha * S) ** 2 + level.sigma**2
    off = np.asarray(x)[..., None] - level.alpha * M
    logs = np.log(W) - 0.5 * np.log(variance) - 0.5 * off**2 / variance
    share = np.exp(logs - logs.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    eps: Array = level.sigma * (share * off / variance).sum(axis=-1)
    return eps


def distribution(x: float, level: Level) -> float:
    """The distribution function F_t(x)."""
    scale = np.sqrt((level.alpha * S) ** 2 + level.sigma**2)
    return float((W * norm.cdf((x - level.alpha * M) / scale)).sum())


def exact(starts: Array, now: Level, after: Level) -> Array:
    """The exact positions of points after the probability flow from `now` to `after`."""
    quantiles = [distribution(float(x), now) for x in starts]
    return np.array(
        [brentq(lambda y, q=q: distribution(y, after) - q, -9, 9, xtol=1e-15) for q in quantiles]
    )


def by_log_snr(steps: int, beyond: int = 0) -> list[Level]:
    """Levels at equal steps of lambda, `beyond` of them after the end; the first step is split.

    A multistep solver starts on the short step. A start of lower order costs its local error once;
    with a first step of h^(3/2) this stays below the error of the other steps.
    """
    h = (HIGH - LOW) / steps
    grid = [HIGH, HIGH - h**1.5, *(HIGH - h * np.arange(1, steps + 1 + beyond))]
    return [at(float(g)) for g in grid]


def by_ratio(steps: int) -> list[Level]:
    """Levels at equal steps of sigma / alpha from 1 on; the curve bends there, so the start counts.

    t counts down in twos, so that each step has a middle.
    """
    return [by_ratio_at(steps, 2 * (steps - k)) for k in range(steps + 1)]


def by_ratio_at(steps: int, t: int) -> Level:
    """The level of any t of `by_ratio`, including odd ones."""
    low = math.exp(LOW)
    return at(math.log(low + (1.0 - low) * t / (2 * steps)), t)


def by_time(steps: int) -> list[Level]:
    """Levels at equal times of a linear schedule: alpha^2 = exp(-0.1 t - 10 t^2), t to 0.05."""
    times = np.linspace(0.6, 0.05, steps + 1)
    return [at(0.5 * math.log(math.expm1(0.1 * t + 10.0 * t * t))) for t in times]


def error(solver: Solver, levels: Sequence[Level], beyond: int = 0) -> float:
    """The largest distance from the exact point, over the five starts.

    Args:
        solver: the update rule.
        levels: from noisy to clean.
        beyond: number of levels after the one at which the error is measured; a solver that ends
            with steps of lower order takes them there.
    """
    seen: dict[int, Array] = {}
    wanted = len(levels) - 1 - beyond
    solve(solver, denoise, STARTS, levels, observe=lambda k, _, x: seen.update({k + 1: x}))
    return float(np.abs(seen[wanted] - exact(STARTS, levels[0], levels[wanted])).max())


def orders(errors: Sequence[float]) -> list[float]:
    """Observed orders of convergence; each error has twice the steps of the one before."""
    return [math.log2(a / b) for a, b in pairwise(errors)]
