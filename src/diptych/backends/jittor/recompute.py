"""Blocks whose activations are computed again in the backward pass. Mirrors `torch/recompute.py`.

Of the branch of a residual or attention block only the inputs are kept: the image, the time
embedding and the dropout mask. The backward pass runs the branch once more, from the last block to
the first, so the activations of one block are in memory at a time. The masks are given, so both
runs are the same. The sum with the input keeps nothing and stays outside; this way gradients are
added in the same order, and on a CPU their bits are those of training without it.

Jittor is lazy, but among the operators that are ready it runs the one that was made first. The
second run is made together with the branch's gradients, so it is not computed before its turn.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jittor as jt

from diptych.backends.jittor.kernels.code import Function
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
            block.branch = _Again(block)  # type: ignore[method-assign,assignment]


class _Again:
    """A branch's call that keeps nothing but its arguments."""

    def __init__(self, block: Any) -> None:
        shortcut = getattr(block, "nin_shortcut", None)  # no part of the branch
        modules = [m for m in block.modules() if m is not shortcut]
        self.run = block.branch
        self.places = [(m, k) for m in modules for k, x in vars(m).items() if isinstance(x, jt.Var)]

    def __call__(self, *given: Any) -> jt.Var:
        found: jt.Var = _Branch(self, len(given))(*given, *self.weights())
        return found

    def weights(self) -> list[jt.Var]:
        return [getattr(module, key) for module, key in self.places]

    def with_weights(self, given: Sequence[Any], weights: Sequence[jt.Var]) -> jt.Var:
        """The branch's output, with these arrays in place of its own weights."""
        own = self.weights()
        try:
            self.put(weights)
            return self.run(*given)
        finally:
            self.put(own)

    def put(self, weights: Sequence[jt.Var]) -> None:
        for (module, key), weight in zip(self.places, weights, strict=True):
            setattr(module, key, weight)


class _Branch(Function):  # type: ignore[misc]
    """One call of a branch. Its inputs are its arguments and its weights, which have gradients."""

    def __init__(self, again: _Again, count: int) -> None:
        self.again, self.count = again, count

    def execute(self, *inputs: Any) -> jt.Var:
        self.inputs = inputs
        # In `grad`, all arrays are stopped.
        self.wanted = [isinstance(x, jt.Var) and not x.is_stop_grad() for x in inputs]
        with jt.no_grad():
            return self.again.with_weights(inputs[: self.count], inputs[self.count :])

    def grad(self, dy: jt.Var) -> list[jt.Var | None]:
        pairs = zip(self.inputs, self.wanted, strict=True)
        inputs = [x.detach() if wanted else x for x, wanted in pairs]
        y = self.again.with_weights(inputs[: self.count], inputs[self.count :])
        targets = [x for x, wanted in zip(inputs, self.wanted, strict=True) if wanted]
        found = iter(jt.grad(_Product(dy)(y), targets))
        return [next(found) if wanted else None for wanted in self.wanted]


class _Product(Function):  # type: ignore[misc]
    """A number whose gradient with respect to y is `dy`, to the bit; its value is never used."""

    def __init__(self, dy: jt.Var) -> None:
        self.dy = dy

    def execute(self, y: jt.Var) -> jt.Var:
        return y.sum()

    def grad(self, _: jt.Var) -> jt.Var:
        return self.dy
