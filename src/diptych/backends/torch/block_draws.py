"""Whole blocks of keyed streams: by NumPy, by Triton's kernels, or by tensor operators.

All give the same bits. NumPy is for CPUs, where it is faster than tensor operators; Triton for a
GPU, if it is installed; tensor operators for any other device.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

from diptych import rng
from diptych.backends.torch.arrays import put
from diptych.rng import PURPOSES, Blocks, normal_table, signed


def block_normals(begin: Blocks, rows: list[int], blocks: int, device: str) -> torch.Tensor:
    """The normals of whole blocks, (len(rows), 8 blocks) float32."""
    if device == "cpu":
        seed, purpose, b, block = begin
        drawn = [rng.keyed_normal(seed, purpose, (8 * blocks,), a, b, 8 * block) for a in rows]
        return torch.from_numpy(np.stack(drawn))
    if device.startswith("cuda") and (kernels := triton_kernels()):
        return kernels.normals(put(begin.integers(*rows), device), len(rows), blocks)
    return normal_of(words(begin, rows, blocks, device))


def block_masks(begin: Blocks, row: int, blocks: int, limit: int, device: str) -> torch.Tensor:
    """Keep masks of whole blocks, (16 blocks,) uint8: 1 if a 16-bit draw is not below `limit`."""
    if device == "cpu":
        seed, purpose, b, block = begin
        draws = rng.words(seed, purpose, row, b, 16 * block, 16 * blocks, "<u2")
        return torch.from_numpy((draws >= limit).view(np.uint8))
    if device.startswith("cuda") and (kernels := triton_kernels()):
        return kernels.masks(put(begin.integers(row, limit), device), blocks)
    return kept(words(begin, [row], blocks, device), limit)


def words(begin: Blocks, rows: list[int], blocks: int, device: str) -> torch.Tensor:
    """Philox-4x64-10 by tensor operators: (len(rows), 4 blocks) int64 with the bits of uint64.

    The upper half of a product of two words is summed from 32-bit halves. int64 wraps around, and
    its shifts are masked to be those of unsigned words.
    """
    purpose = PURPOSES[begin.purpose]
    counter = torch.arange(blocks, dtype=torch.int64, device=device) + signed(begin.block + 1)
    c0 = counter.expand(len(rows), blocks)
    c1 = torch.zeros_like(c0)
    c2 = torch.full_like(c0, signed(begin.b))
    c3 = put(begin.integers(*rows)[4:], device)[:, None].expand(len(rows), blocks)
    for turn in range(10):
        k0 = signed(begin.seed + turn * 0x9E3779B97F4A7C15)
        k1 = signed(purpose + turn * 0xBB67AE8584CAA73B)
        high0, low0 = _product(0xD2E7470EE14C6C93, c0)
        high1, low1 = _product(0xCA5A826395121157, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
    return torch.stack([c0, c1, c2, c3], 2).reshape(len(rows), 4 * blocks)


def normal_of(drawn: torch.Tensor) -> torch.Tensor:
    """(R, n) words -> (R, 2 n) normals by tensor operators; the formula of `diptych.rng`."""
    halves = drawn.view(torch.int32).to(torch.int64)
    values, slopes = _table(str(drawn.device))
    bits = ((halves | 1) & 0xFFFFFFFF).to(torch.float64).view(torch.int64)
    part = (bits >> 44) - (1023 << 8)
    place = (bits >> 21) & 0x7FFFFF
    z = values[part] - ((slopes[part] * place + (1 << 22)) >> 23)
    return torch.where((halves & 1).bool(), -z, z).to(torch.float32) * 2.0**-28


def kept(drawn: torch.Tensor, limit: int) -> torch.Tensor:
    """(1, n) words -> (4 n,) keep masks by tensor operators."""
    draws = drawn.view(torch.int16).to(torch.int32) & 0xFFFF
    return (draws >= limit).to(torch.uint8).flatten()


def _product(m: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Upper and lower word of m x."""
    low, high = m & 0xFFFFFFFF, m >> 32
    x_low, x_high = x & 0xFFFFFFFF, (x >> 32) & 0xFFFFFFFF
    middle = high * x_low + (((low * x_low) >> 32) & 0xFFFFFFFF)
    other = low * x_high + (middle & 0xFFFFFFFF)
    upper = high * x_high + ((middle >> 32) & 0xFFFFFFFF) + ((other >> 32) & 0xFFFFFFFF)
    return upper, x * signed(m)


@cache
def _table(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, slopes = torch.from_numpy(normal_table().astype(np.int64)).to(device).unbind(1)
    return values.contiguous(), slopes.contiguous()


@cache
def triton_kernels() -> Any:
    """The module of Triton's kernels, or None without Triton."""
    try:
        from diptych.backends.torch import triton_draws
    except ImportError:
        return None
    return triton_draws
