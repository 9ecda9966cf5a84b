"""Blocks whose activations are computed again in the backward pass. Mirrors `torch/recompute.py`.

Of a residual or attention block only the inputs are kept: the image, the time embedding and the
dropout mask. The backward pass runs the block once more, from the last block to the first, so the
activations of one block are in memory at a time. The masks are given, so both runs are the same.

Jittor is lazy, but among the operators that are ready it runs the one made first. The second run
is made when the gradient of the block's output is, and so it is computed no earlier than that.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from __future__ import annotations

from typing import Any

import jittor as jt

from diptych.backends.jittor.unet import AttnBlock, ResnetBlock
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
            block.execute = _Again(block)


class _Again:
    """A block's call that keeps nothing but its arguments."""

    def __init__(self, block: Any) -> None:
        self.run, self.weights = block.execute, block.parameters()

    def __call__(self, *given: Any) -> jt.Var:
        found: jt.Var = _Block(self.run, self.weights)(*given, *self.weights)
        return found


class _Block(jt.Function):  # type: ignore[misc]
    """One call of a block: its arguments, then its weights, which are inputs for their gradients."""

    def __init__(self, run: Any, weights: list[jt.Var]) -> None:
        self.run, self.weights = run, weights

    def execute(self, *inputs: Any) -> jt.Var:
        self.given = inputs[: len(inputs) - len(self.weights)]
        # In `grad`, all arrays are stopped.
        self.wanted = [isinstance(x, jt.Var) and not x.is_stop_grad() for x in self.given]
        with jt.no_grad():
            return self.run(*self.given)

    def grad(self, dy: jt.Var) -> list[jt.Var | None]:
        pairs = list(zip(self.given, self.wanted, strict=True))
        given = [x.detach() if wanted else x for x, wanted in pairs]
        inputs = [x for x, wanted in zip(given, self.wanted, strict=True) if wanted]
        loss = _Product(dy)(self.run(*given))
        found = iter(jt.grad(loss, [*inputs, *self.weights]))
        return [*(next(found) if wanted else None for wanted in self.wanted), *found]


class _Product(jt.Function):  # type: ignore[misc]
    """A number whose gradient with respect to y is `dy`, to the bit; its value is never used."""

    def __init__(self, dy: jt.Var) -> None:
        self.dy = dy

    def execute(self, y: jt.Var) -> jt.Var:
        return y.sum()

    def grad(self, _: jt.Var) -> jt.Var:
        return self.dy
