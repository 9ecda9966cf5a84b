"""What a network is trained to predict, and how much each timestep counts.

    eps     the noise
    x0      the image
    v       alpha eps - sigma x0           Salimans & Ho 2022, arXiv:2202.00512, section 4

    min-snr     weights of the squared error, with SNR = alpha^2 / sigma^2:
                x0: min(SNR, gamma)    eps: min(SNR, gamma) / SNR    v: min(SNR, gamma) / (SNR + 1)
                Hang et al. 2023, arXiv:2303.09556, section 3.4

The three weights are one weight of the image's error, written for each objective.
"""

from __future__ import annotations

import numpy as np

from diptych.diffusion.schedule import Schedule
from diptych.types import A, Float64


def target(objective: str, x0: A, eps: A, alpha: A, sigma: A) -> A:
    """What the network is to give for x_t = alpha x0 + sigma eps; arrays of any framework.

    Args:
        objective: eps, x0 or v.
        x0, eps: images and noise, (B, C, H, W).
        alpha, sigma: scales, (B, 1, 1, 1).
    """
    if objective == "eps":
        return eps
    if objective == "x0":
        return x0
    return alpha * eps - sigma * x0  # type: ignore[operator, no-any-return]


def min_snr_weights(objective: str, schedule: Schedule, gamma: float) -> Float64:
    """The weight of each timestep, (T,) float64."""
    snr = (schedule.alpha / schedule.sigma) ** 2
    if objective == "eps":
        return gamma / np.maximum(snr, gamma)  # the same, and 1 where SNR is 0
    least: Float64 = np.minimum(snr, gamma)
    return least if objective == "x0" else least / (snr + 1.0)
