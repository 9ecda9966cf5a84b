"""The forward process, and conversions between x0, eps and v; plain arithmetic on any array.

    x_t = alpha * x0 + sigma * eps
    x0  = (x_t - sigma * eps) / alpha          Ho et al. 2020, arXiv:2006.11239, equations 4 and 15
    v   = alpha * eps - sigma * x0             Salimans & Ho 2022, arXiv:2202.00512, section 4

All arrays, in and out, are (B, C, H, W). Coefficients are Python floats, so float32 arrays of any
framework stay float32.
"""

from __future__ import annotations

from diptych.diffusion.schedule import Level
from diptych.types import A


def add_noise(x0: A, eps: A, level: Level) -> A:
    """Noisy images x_t at one level: alpha * x0 + sigma * eps; shapes (B, C, H, W)."""
    return level.alpha * x0 + level.sigma * eps


def x0_from_eps(x_t: A, eps: A, level: Level) -> A:
    """The image implied by a noise prediction: (x_t - sigma * eps) / alpha.

    Args:
        x_t: noisy images, (B, C, H, W), float32.
        eps: predicted noise, same shape.
        level: host floats of one timestep, shared by the batch.

    Returns:
        Images, in [-1, 1] up to prediction error; not clipped.

    Raises:
        ValueError: `level.alpha` is 0, so no image can be recovered.
    """
    if level.alpha == 0.0:
        raise ValueError(f"no image remains at t={level.t} (alpha is 0)")
    return (1.0 / level.alpha) * x_t + (-level.sigma / level.alpha) * eps


def eps_from_x0(x_t: A, x0: A, level: Level) -> A:
    """The noise implied by an image prediction: (x_t - alpha * x0) / sigma.

    Raises:
        ValueError: `level.sigma` is 0, so no noise remains.
    """
    if level.sigma == 0.0:
        raise ValueError(f"no noise remains at t={level.t} (sigma is 0)")
    return (1.0 / level.sigma) * x_t + (-level.alpha / level.sigma) * x0


def x0_from_v(x_t: A, v: A, level: Level) -> A:
    """The image implied by a velocity prediction: alpha * x_t - sigma * v."""
    return level.alpha * x_t + (-level.sigma) * v


def eps_from_v(x_t: A, v: A, level: Level) -> A:
    """The noise implied by a velocity prediction: sigma * x_t + alpha * v."""
    return level.sigma * x_t + level.alpha * v
