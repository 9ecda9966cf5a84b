"""Blocks whose activations are computed again in the backward pass. Mirrors `jittor/recompute.py`.

Of the branch of a residual or attention block only the inputs are kept: the image, the time
embedding and the dropout mask. The backward pass runs the branch once more, from the last block to
the first, so the activations of one block are in memory at a time. The masks are given, so both
runs are the same. The sum with the input keeps nothing and stays outside; this way gradients are
added in the same order, and on a CPU their bits are those of training without it.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from diptych.backends.torch.unet import AttnBlock, ResnetBlock
from diptych.errors import UserError
from diptych.network.own import AnyPlan, OwnPlan


def recompute(plan: AnyPlan, network: Any) -> None:
    """Make the network's blocks compute their activations again; the weights keep their names.

    Raises:
        UserError: it is a user's own network, whose blocks are unknown.
    """
    if isinstance(plan, OwnPlan):
        raise UserError(
            "train.checkpoint_activations: the blocks of a network of your own are not known; set "
            "it to false, or recompute activations in the module itself"
        )
    for block in network.modules():
        if isinstance(block, (ResnetBlock, AttnBlock)):
            block.branch = _Again(block)  # type: ignore[method-assign,assignment]


class _Again:
    """A branch's call that keeps nothing but its arguments."""

    def __init__(self, block: Any) -> None:
        self.run = block.branch

    def __call__(self, *given: Any) -> torch.Tensor:
        found: torch.Tensor = checkpoint(
            self.run, *given, use_reentrant=False, preserve_rng_state=False
        )
        return found
