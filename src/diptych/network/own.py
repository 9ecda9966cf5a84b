"""A network that the user brings, in place of the U-Net's plan.

    module(x, t)             x: (B, C, H, W) float32; t: (B,) integers 0 .. T - 1
    module(x, t, classes)    classes: (B,) integers 0 .. K; K is 'no class'

It gives (B, C, H, W): the noise, the image or the velocity, as `objective` says. Its weights keep
the module's own names, and are checked against the module itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from diptych.errors import UserError
from diptych.network.plan import Block, Plan
from diptych.types import Int64


@dataclass(frozen=True)
class OwnPlan:
    """Plan of a user's own network; see `diptych.network.plan.Plan`.

    Attributes:
        make: makes the module, a `torch.nn.Module` or a Jittor `Module`.
        channels, height, width: of the images.
        num_classes: K; 0: the module takes no classes.
        objective: what it predicts: eps, x0 or v.
        seed: keys the framework's generator, of which the module draws its first weights; None:
            it is left alone.
    """

    make: Callable[[], Any]
    channels: int
    height: int
    width: int
    num_classes: int = 0
    objective: str = "eps"
    seed: int | None = None

    dropout: ClassVar[float] = 0.0  # the module drops out by itself
    blocks: ClassVar[tuple[Block, ...]] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return (self.channels, self.height, self.width)

    def times(self, t: npt.ArrayLike) -> Int64:
        """Input of the network for timesteps (B,): themselves."""
        return np.asarray(t, dtype=np.int64)


AnyPlan = Plan | OwnPlan


def maker(network: Any, config: Any) -> Callable[[], Any]:
    """The user's `network` as a function without arguments.

    Args:
        network: a function or class that makes a module. One whose first parameter has no default
            is given `config`.

    Raises:
        UserError: it is a module already, or nothing that can be called.
    """
    if hasattr(network, "named_parameters") and not isinstance(network, type):
        raise UserError(
            "network: give a function that makes the module, not a module: training and sampling "
            "make one each. For example network=lambda: MyNetwork(64)"
        )
    if not callable(network):
        raise UserError(f"network: expected a function that makes a module, not {network!r}")
    try:
        given = list(inspect.signature(network).parameters.values())
    except ValueError:  # of a class written in C
        given = []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if given and given[0].kind in plain and given[0].default is inspect.Parameter.empty:
        return lambda: network(config)
    return lambda: network()
