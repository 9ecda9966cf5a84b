"""Operators of the Jittor backend, forward and backward, on any device.

Each operator is one or two bodies, of C++ on a CPU and of CUDA on a GPU; `code` says which are
Jittor's own instead. All take and return float32 arrays, images as (B, C, H, W), and raise
ValueError if shapes do not fit.
"""

from __future__ import annotations

from diptych.backends.jittor.kernels.conv import conv2d
from diptych.backends.jittor.kernels.dense import attention, linear
from diptych.backends.jittor.kernels.norm import group_norm, silu
from diptych.backends.jittor.kernels.pixels import add, avg_pool, clip, concat, dropout, upsample
from diptych.backends.jittor.kernels.update import adam, gradient_norm

__all__ = [
    "adam",
    "add",
    "attention",
    "avg_pool",
    "clip",
    "concat",
    "conv2d",
    "dropout",
    "gradient_norm",
    "group_norm",
    "linear",
    "silu",
    "upsample",
]
