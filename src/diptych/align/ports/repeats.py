"""A network that computes something else each time cannot be compared: it is refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.align.ports.modules import Call, Network
from diptych.errors import UserError
from diptych.types import Array

ROUNDING = 1e-3  # of the largest value: what threads may add in another order changes less


def check_repeatable(network: Network, inputs: Mapping[str, Array], loss: bool) -> None:
    """Compare two runs of a network on the same inputs, in each mode, and of its own loss.

    Args:
        loss: the loss is to be climbed.

    Raises:
        UserError: they differ by more than rounding; names the mode and the first layer.
    """
    weights = network.weights()
    read = network.framework.read

    def output() -> list[Array]:
        return [read(v) for v in network.output(inputs)]

    def own_loss() -> list[Array]:
        return [read(network.loss(inputs))]

    def run(seed: int, what: Callable[[], list[Array]], on: bool) -> list[Array]:
        network.load(weights)
        network.train(on)
        network.framework.seed(seed)
        with network.still():
            return what()

    ways: list[tuple[str, Callable[[], list[Array]], bool]] = [
        ("in evaluation mode", output, False),
        ("in training mode", output, True),
    ]
    if loss and network.own("loss") is not None:
        ways.append(("in loss()", own_loss, True))
    for where, what, on in ways:
        first, second = (run(seed, what, on) for seed in (1, 2))
        if _apart(first, second) == 0:
            continue
        rounding = min(10 * _apart(first, run(1, what, on)), ROUNDING)
        if _apart(first, second) > rounding:
            seen: list[list[Call]] = [[], []]
            for seed, calls in enumerate(seen, 1):
                with network.watched(calls.append):
                    run(seed, what, on)
            raise UserError(
                f"{network.target.text}: called twice with the same inputs and weights, the "
                f"network gives two results {where}, {_place(network, seen, rounding)}; make its "
                "random numbers an input (dropout's modules and functions of nn are off already)"
            )
    network.load(weights)
    network.train(False)


def _apart(a: Sequence[Array], b: Sequence[Array]) -> float:
    """The largest difference, by the largest value of its array; infinite for other shapes."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.shape != y.shape:
            return np.inf
        if np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = float(np.nanmax(np.abs(x - y)) / (np.nanmax(np.abs(x)) or 1.0))
        worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def _place(network: Network, seen: Sequence[Sequence[Call]], rounding: float) -> str:
    """The first layer that gives another result of the same arguments."""
    for a, b in zip(*seen, strict=False):
        if a.path != b.path or len(a.taken) != len(b.taken) or len(a.made) != len(b.made):
            break
        if _apart(a.taken, b.taken) <= rounding < _apart(a.made, b.made):
            kind: Any = type(network.modules[a.path.partition("#")[0]]).__name__
            return f"first in layer '{a.path}' ({kind})"
    return "in code of its own"
