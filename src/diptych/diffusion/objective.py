"""The prediction type of a network, and the weight of each timestep in the loss.

    eps     the noise
    x0      the image
    v       alpha eps - sigma x0           Salimans & Ho 2022, arXiv:2202.00512, section 4

    min-snr     weights of the squared error, with SNR = alpha^2 / sigma^2:
                x0: min(SNR, gamma)    eps: min(SNR, gamma) / SNR    v: min(SNR, gamma) / (SNR + 1)
                Hang et al. 2023, arXiv:2303.09556, section 3.4

The three formulas are the same weight on the error of x0, written for each prediction type.
"""

from __future__ import annotations

import numpy as np

from diptych.diffusion.schedule import Schedule
from diptych.types import A, Float64


def target(objective: str, x0: A, eps: A, alpha: A, sigma: A) -> A:
    """The regression target at x_t = alpha x0 + sigma eps; arrays of any framework.

    Args:
        objective: the prediction type: eps, x0 or v.
        x0, eps: images and noise, (B, C, H, W).
        alpha, sigma: scales, (B, 1, 1, 1).
    """
    if objective == "eps":
        return eps
    if objective == "x0":
        return x0
    return alpha * eps - sigma * x0  # type: ignore[operator, no-any-return]


def min_snr_weights(objective: str, schedule: Schedule, gamma: float) -> Float64:
    """The min-SNR weight of each timestep, (T,) float64; see the module's formulas."""
    snr = (schedule.alpha / schedule.sigma) ** 2
    if objective == "eps":
        return gamma / np.maximum(snr, gamma)  # the same, and 1 if SNR is 0
    least: Float64 = np.minimum(snr, gamma)
    return least if objective == "x0" else least / (snr + 1.0)
