"""Noise schedules: the scales of the image and of the noise at each timestep.

    x_t = alpha[t] * x0 + sigma[t] * eps,      alpha[t]**2 + sigma[t]**2 = 1
    alpha[t]**2 = alpha_bar[t] = product over s <= t of (1 - beta[s])

`alpha` is the image's scale; Ho et al. (2020), section 2, write alpha-bar for its square.
Tables are float64 on the host: in float32 the product of 1,000 factors loses digits
exactly where the solvers divide by sigma.

A timestep spacing chooses S different timesteps of the T for sampling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np

from diptych.config.load import DiffusionConfig
from diptych.errors import UserError, nearest
from diptych.types import Float64

SCHEDULES: tuple[str, ...] = get_args(DiffusionConfig.model_fields["schedule"].annotation)
SPACINGS = ("uniform", "quad", "trailing")


@dataclass(frozen=True)
class Level:
    """One noise level, as host floats.

    Attributes:
        t: timestep, 0 .. T-1; -1 for the clean image.
        alpha, sigma: scales of the image and of the noise, each in [0, 1].
    """

    t: int
    alpha: float
    sigma: float


CLEAN = Level(-1, 1.0, 0.0)


@dataclass(frozen=True)
class Schedule:
    """The tables of one forward process, each (T,) float64."""

    beta: Float64
    alpha: Float64
    sigma: Float64

    @property
    def timesteps(self) -> int:
        """T, the number of noise levels."""
        return len(self.beta)

    def level(self, t: int) -> Level:
        """The level of timestep `t`, 0 .. T-1; -1 is the clean image. Any other t: ValueError."""
        if t == -1:
            return CLEAN
        if not 0 <= t < self.timesteps:
            raise ValueError(f"timestep {t} is outside 0 .. {self.timesteps - 1}")
        return Level(t, float(self.alpha[t]), float(self.sigma[t]))


def make_schedule(config: DiffusionConfig) -> Schedule:
    """The tables described by a config.

    Sources: Ho et al. 2020 and its code (linear, quad, const, jsd); Song et al. 2021, official
    DDIM code (sigmoid); Nichol & Dhariwal 2021, equation 17 (cosine).
    """
    beta = make_betas(config.schedule, config.beta_start, config.beta_end, config.timesteps)
    if config.zero_terminal_snr:
        return _ending_in_noise(np.sqrt(np.cumprod(1.0 - beta)))
    alpha_bar = np.cumprod(1.0 - beta)
    # sigma is not computed from 1 - alpha_bar: the difference would lose beta[0]'s last digits.
    with np.errstate(divide="ignore"):  # jsd ends at beta = 1: log 0, and sigma is exactly 1
        sigma = np.sqrt(-np.expm1(np.cumsum(np.log1p(-beta))))
    return Schedule(beta, np.sqrt(alpha_bar), sigma)


def starts_in_noise(schedule: Schedule, objective: str) -> bool:
    """True if trajectories start at a level that holds nothing of the image (alpha 0).

    A network that predicts eps cannot start there: eps is then its own input.
    """
    return bool(schedule.alpha[-1] == 0) and objective != "eps"


def _ending_in_noise(alpha: Float64) -> Schedule:
    """The tables with alpha shifted to end at 0 and scaled to keep its first value.

    Source: Lin et al. 2023, arXiv:2305.08891, algorithm 1.
    """
    alpha = (alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))
    beta = 1.0 - (alpha / np.append(1.0, alpha[:-1])) ** 2
    return Schedule(beta, alpha, np.sqrt((1.0 - alpha) * (1.0 + alpha)))


def make_betas(name: str, start: float, end: float, timesteps: int) -> Float64:
    """The variances beta[t], (T,) float64, each in (0, 1].

    Args:
        name: one of `SCHEDULES`.
        start, end: first and last beta; `const` uses only `end`, `jsd` and `cosine` neither.
        timesteps: T.

    Raises:
        UserError: an unknown name.
    """
    if name not in SCHEDULES:
        raise UserError(f"schedule '{name}' is not known{nearest(name, list(SCHEDULES))}")
    beta: Float64
    if name == "linear":
        beta = np.linspace(start, end, timesteps)
    elif name == "quad":
        beta = np.linspace(math.sqrt(start), math.sqrt(end), timesteps) ** 2
    elif name == "const":
        beta = np.full(timesteps, end)
    elif name == "jsd":
        beta = 1.0 / (timesteps - np.arange(timesteps))
    elif name == "sigmoid":
        beta = (end - start) / (1.0 + np.exp(-np.linspace(-6, 6, timesteps))) + start
    else:
        beta = _cosine(timesteps)
    return beta


def _cosine(timesteps: int) -> Float64:
    offset = 0.008  # keeps the first betas from vanishing (their section 3.2)
    grid = np.arange(timesteps + 1) / timesteps
    alpha_bar = np.cos((grid + offset) / (1 + offset) * np.pi / 2) ** 2
    beta: Float64 = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], 0.999)
    return beta


def make_spacing(name: str, steps: int, timesteps: int) -> list[int]:
    """Exactly `steps` different timesteps in ascending order, each in 0 .. T-1.

    `uniform` is floor(i T / S), the official DDIM sequence if S divides T. `quad` is the official
    (i sqrt(0.8 T) / (S - 1))**2 rounded down, but a timestep that the official code would visit
    twice moves up to the next free one. `trailing` ends at T-1 (Lin et al. 2023, arXiv:2305.08891,
    table 2).

    Raises:
        UserError: an unknown name, S < 1, or S > T.
    """
    if name not in SPACINGS:
        raise UserError(f"spacing '{name}' is not known{nearest(name, list(SPACINGS))}")
    if not 1 <= steps <= timesteps:
        raise UserError(
            f"{steps} steps cannot be taken from {timesteps} timesteps; choose 1 to {timesteps}"
        )
    if name == "uniform":
        return [i * timesteps // steps for i in range(steps)]
    if name == "trailing":
        return [round(i * timesteps / steps) - 1 for i in range(1, steps + 1)]
    official = np.linspace(0.0, math.sqrt(timesteps * 0.8), steps) ** 2
    chosen: list[int] = []
    for t in official.astype(int).tolist():
        chosen.append(max(t, chosen[-1] + 1) if chosen else t)
    return chosen
