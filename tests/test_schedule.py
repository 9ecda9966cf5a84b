"""Noise schedules against independent arithmetic, and spacings that always give S timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from properties import given, settings, st

from diptych.config import DiffusionConfig
from diptych.errors import UserError
from diptych.schedule import (
    CLEAN,
    SCHEDULES,
    SPACINGS,
    Level,
    make_betas,
    make_schedule,
    make_spacing,
)

START, END = 1e-4, 0.02


def config(**changes: Any) -> DiffusionConfig:
    return DiffusionConfig(**changes)


# Schedules, once more, in 40 digits and plain loops


def mp_beta(name: str, t: int, timesteps: int) -> Any:
    """beta[t] from the papers' formulas."""
    start, end, last = mpmath.mpf(START), mpmath.mpf(END), timesteps - 1
    if name == "linear":
        return start + (end - start) * t / last
    if name == "quad":
        root = mpmath.sqrt(start) + (mpmath.sqrt(end) - mpmath.sqrt(start)) * t / last
        return root**2
    if name == "const":
        return end
    if name == "jsd":
        return mpmath.mpf(1) / (timesteps - t)
    if name == "sigmoid":
        x = -6 + mpmath.mpf(12) * t / last
        return (end - start) / (1 + mpmath.exp(-x)) + start
    assert name == "cosine"
    now, after = (
        mpmath.cos(
            (mpmath.mpf(s) / timesteps + mpmath.mpf("0.008")) / mpmath.mpf("1.008") * mpmath.pi / 2
        )
        for s in (t, t + 1)
    )
    return min(1 - (after / now) ** 2, mpmath.mpf("0.999"))


@pytest.mark.parametrize("timesteps", [2, 3, 10, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_tables_against_forty_digits(name: str, timesteps: int) -> None:
    schedule = make_schedule(config(schedule=name, timesteps=timesteps))
    with mpmath.workdps(40):
        alpha_bar = mpmath.mpf(1)
        for t in range(timesteps):
            beta = mp_beta(name, t, timesteps)
            alpha_bar *= 1 - beta
            assert schedule.beta[t] == pytest.approx(float(beta), rel=1e-11, abs=0)
            assert schedule.alpha[t] == pytest.approx(float(mpmath.sqrt(alpha_bar)), rel=1e-12)
            assert schedule.sigma[t] == pytest.approx(float(mpmath.sqrt(1 - alpha_bar)), rel=1e-12)
