"""Clipping, Adam and the moving average in one pass. Mirrors diptych/backends/torch/optim.py.

    g' = g * min(1, max_norm / (norm + 1e-6)),      norm over all gradients together
    m  = beta1 m + (1 - beta1) g',                  v = beta2 v + (1 - beta2) g'^2
    p -= lr / (1 - beta1^n) * m / (sqrt(v) / sqrt(1 - beta2^n) + eps)
    e  = ema_rate e + (1 - ema_rate) p

This is torch's formula: Jittor's own Adam has an eps 31.6 times larger at the first step.
"""

from __future__ import annotations

from collections.abc import Callable

import jittor as jt

from diptych.backends.jittor import kernels
from diptych.backends.protocol import unmarked


def adam_step(
    params: list[jt.Var],
    grads: list[jt.Var],
    m: list[jt.Var],
    v: list[jt.Var],
    ema: list[jt.Var],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
    max_norm: float,
    ema_rate: float,
    mark: Callable[[str], None] = unmarked,
) -> jt.Var:
    """Update params, m, v and ema in place; return the norm before clipping.

    Args:
        params, grads, m, v, ema: lists of equal length, of float32 arrays of equal shapes;
            grads may be overwritten.
        step: 1-based number of this step.
        max_norm: largest total norm that is not clipped; may be infinite.
        mark: called with `optimizer` when both Adam and EMA are done; for profiles.

    Returns:
        The gradients' total norm, one element, on the device.
    """
    norm = kernels.gradient_norm(grads)
    numbers = {"max_norm": min(max_norm, 3e38), "step_size": lr / (1 - beta1**step)}
    numbers |= {"root": (1 - beta2**step) ** 0.5, "eps": eps, "ema_rate": ema_rate}
    kernels.adam(norm, grads, params, m, v, ema, beta1=beta1, beta2=beta2, **numbers)
    mark("optimizer")  # includes the moving average: one kernel does both
    return norm
