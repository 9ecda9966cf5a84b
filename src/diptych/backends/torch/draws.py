"""Keyed noise and dropout masks, PyTorch backend; mirror: `jittor/draws.py`.

The bits are those of `diptych.rng.keyed_normal` and `keep_mask`, wherever they are drawn. A stream
is drawn in whole blocks: four words of 64 bits, so 8 normals or 16 elements of a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from diptych import rng
from diptych.backends.torch.block_draws import block_masks, block_normals
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
) -> torch.Tensor:
    """Normal noise, (len(rows), *shape): row i from element `first` of stream (rows[i], b)."""
    block, skipped = divmod(first, NORMALS)
    size = math.prod(shape)
    count = -(-(skipped + size) // NORMALS)
    drawn = normals(rng.Blocks(seed, purpose, b, block), rows, count, device)
    return drawn[:, skipped : skipped + size].reshape((len(rows), *shape))


def keyed_masks(
    plan: AnyPlan, seed: int, step: int, size: int, first_row: int, device: str
) -> list[torch.Tensor] | None:
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


def normals(begin: rng.Blocks, rows: Sequence[int], blocks: int, device: str) -> torch.Tensor:
    """The normals of whole blocks, (len(rows), 8 blocks) float32."""
    return block_normals(begin, list(rows), blocks, device)


def masks(begin: rng.Blocks, row: int, blocks: int, limit: int, device: str) -> torch.Tensor:
    """Keep masks of whole blocks, (16 blocks,) uint8: 1 if a 16-bit draw is not below `limit`."""
    return block_masks(begin, row, blocks, limit, device)
