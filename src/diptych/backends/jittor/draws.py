"""Keyed noise and dropout masks, Jittor backend; mirror: `torch/draws.py`.

The bits are those of `diptych.rng.keyed_normal` and `keep_mask`, wherever they are drawn. A stream
is drawn in whole blocks: four words of 64 bits, so 8 normals or 16 elements of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jittor as jt

from diptych import rng
from diptych.backends.jittor.kernels.blocks import block_masks, block_normals
from diptych.network.own import AnyPlan

NORMALS, BYTES = 8, 16  # in a block of the stream


def keyed_noise(
    seed: int,
    purpose: str,
    rows: Sequence[int],
    shape: Sequence[int],
    b: int,
    first: int,
    device: str,
) -> jt.Var:
    """Normal noise, (len(rows), *shape): row i from element `first` of stream (rows[i], b)."""
    block, skipped = divmod(first, NORMALS)
    size = math.prod(shape)
    count = -(-(skipped + size) // NORMALS)
    drawn = normals(rng.Blocks(seed, purpose, b, block), rows, count, device)
    return drawn[:, skipped : skipped + size].reshape((len(rows), *shape))


def keyed_masks(
    plan: AnyPlan, seed: int, step: int, size: int, first_row: int, device: str
) -> list[jt.Var] | None:
    """Keep masks of `size` images of a step, the first of which is row `first_row` of the batch."""
    if not plan.dropout:
        return None
    found = []
    for layer, block in enumerate(plan.blocks):
        pixels = math.prod(block.shape)
        start, skipped = divmod(first_row * pixels, BYTES)
        count = -(-(skipped + size * pixels) // BYTES)
        limit = rng.dropped_below(plan.dropout)
        drawn = masks(rng.Blocks(seed, "dropout", layer, start), step, count, limit, device)
        mask = drawn[skipped : skipped + size * pixels]
        found.append(mask.reshape((size, *block.shape)))
    return found


def normals(begin: rng.Blocks, rows: Sequence[int], blocks: int, device: str) -> jt.Var:
    """The normals of whole blocks, (len(rows), 8 blocks) float32."""
    return block_normals(begin, list(rows), blocks)


def masks(begin: rng.Blocks, row: int, blocks: int, limit: int, device: str) -> jt.Var:
    """Keep masks of whole blocks, (16 blocks,) uint8: 1 if a 16-bit draw is not below `limit`."""
    return block_masks(begin, row, blocks, limit)
