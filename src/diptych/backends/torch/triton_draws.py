"""Triton kernels of `draws`: a block's words, and its normals or mask, in registers.

Only imported where Triton is installed. A program handles BLOCK blocks of one row. The key arrives
as an array on the device, so that no new step or layer compiles anything.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from diptych.rng import normal_table

BLOCK = 256


@triton.jit  # type: ignore[untyped-decorator]
def _philox(n, k0, k1, b, a):  # type: ignore[no-untyped-def]
    c0 = n
    c1 = n * 0
    c2 = c1 + b
    c3 = c1 + a
    m0 = tl.full(n.shape, 0xD2E7470EE14C6C93, tl.uint64)
    m1 = tl.full(n.shape, 0xCA5A826395121157, tl.uint64)
    x0 = n * 0 + k0
    x1 = n * 0 + k1
    for _ in tl.static_range(10):
        h0 = tl.umulhi(c0, m0)
        l0 = c0 * m0
        h1 = tl.umulhi(c2, m1)
        l1 = c2 * m1
        c0 = h1 ^ c1 ^ x0
        c1 = l1
        c2 = h0 ^ c3 ^ x1
        c3 = l0
        x0 += 0x9E3779B97F4A7C15
        x1 += 0xBB67AE8584CAA73B
    return c0, c1, c2, c3


@triton.jit  # type: ignore[untyped-decorator]
def _word(place):  # type: ignore[no-untyped-def]
    return tl.load(place).to(tl.uint64, bitcast=True)


@triton.jit  # type: ignore[untyped-decorator]
def _blocks(begin, i, row):  # type: ignore[no-untyped-def]
    """The words of blocks i after the first one of `begin`: [seed, purpose, b, block, rows ...]."""
    n = _word(begin + 3) + (i + 1).to(tl.uint64)
    return _philox(n, _word(begin), _word(begin + 1), _word(begin + 2), _word(begin + 4 + row))


@triton.jit  # type: ignore[untyped-decorator]
def _normal(half, values, slopes):  # type: ignore[no-untyped-def]
    bits = (half | 1).to(tl.float64).to(tl.int64, bitcast=True)
    part = (bits >> 44) - (1023 << 8)
    place = (bits >> 21) & 0x7FFFFF
    z = tl.load(values + part) - ((tl.load(slopes + part) * place + (1 << 22)) >> 23)
    z = tl.where((half & 1) != 0, -z, z)
    return z.to(tl.int32).to(tl.float32) * 3.7252902984619140625e-09  # 2^-28


@triton.jit  # type: ignore[untyped-decorator]
def _normals(begin, values, slopes, out, blocks, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w0, w1, w2, w3 = _blocks(begin, i, row)
    to = out + (row.to(tl.int64) * blocks + i) * 8
    inside = i < blocks
    low = 0xFFFFFFFF
    tl.store(to, _normal(w0 & low, values, slopes), inside)
    tl.store(to + 1, _normal(w0 >> 32, values, slopes), inside)
    tl.store(to + 2, _normal(w1 & low, values, slopes), inside)
    tl.store(to + 3, _normal(w1 >> 32, values, slopes), inside)
    tl.store(to + 4, _normal(w2 & low, values, slopes), inside)
    tl.store(to + 5, _normal(w2 >> 32, values, slopes), inside)
    tl.store(to + 6, _normal(w3 & low, values, slopes), inside)
    tl.store(to + 7, _normal(w3 >> 32, values, slopes), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _four(word, limit):  # type: ignore[no-untyped-def]
    """Bytes 0 and 1 of a word's four 16-bit draws, packed into 32 bits."""
    found = ((word & 0xFFFF) >= limit).to(tl.uint64)
    for j in tl.static_range(1, 4):
        found |= (((word >> (16 * j)) & 0xFFFF) >= limit).to(tl.uint64) << (8 * j)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _masks(begin, out, blocks, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w0, w1, w2, w3 = _blocks(begin, i, 0)
    limit = _word(begin + 5)
    low = _four(w0, limit) | (_four(w1, limit) << 32)
    high = _four(w2, limit) | (_four(w3, limit) << 32)
    tl.store(out + 2 * i, low.to(tl.int64, bitcast=True), i < blocks)
    tl.store(out + 2 * i + 1, high.to(tl.int64, bitcast=True), i < blocks)


def normals(begin: torch.Tensor, rows: int, blocks: int) -> torch.Tensor:
    """(rows, 8 blocks) float32; begin: `Blocks.integers(*rows)` on the device."""
    values, slopes = _table(str(begin.device))
    out = torch.empty((rows, 8 * blocks), dtype=torch.float32, device=begin.device)
    _normals[(triton.cdiv(blocks, BLOCK), rows)](begin, values, slopes, out, blocks, BLOCK=BLOCK)
    return out


def masks(begin: torch.Tensor, blocks: int) -> torch.Tensor:
    """(16 blocks,) uint8; begin: `Blocks.integers(row, limit)` on the device."""
    out = torch.empty((2 * blocks,), dtype=torch.int64, device=begin.device)
    _masks[(triton.cdiv(blocks, BLOCK),)](begin, out, blocks, BLOCK=BLOCK)
    return out.view(torch.uint8)


@cache
def _table(device: str) -> Any:
    table = torch.from_numpy(normal_table().copy()).to(device, torch.int64)
    return table[:, 0].contiguous(), table[:, 1].contiguous()
