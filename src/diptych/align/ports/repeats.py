"""A network that computes something else each time cannot be compared: it is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diptych.align.ports.modules import Call, Network
from diptych.errors import UserError
from diptych.types import Array

ROUNDING = 1e-3  # of the largest value: what threads may add in another order changes less
SEEDS = range(2, 6)  # compared with seed 1

Run = Callable[[int], list[Array]]


def check_repeatable(network: Network, inputs: Mapping[str, Array], loss: bool) -> None:
    """Run a network on the same inputs with several seeds, in each mode, and its own loss.

    Args:
        loss: the loss is to be climbed.

    Raises:
        UserError: the results differ by more than rounding, or random numbers are drawn; names the
            mode and the first layer.
    """
    weights, read = network.weights(), network.framework.read

    def run(on: bool, own: bool) -> Run:
        def once(seed: int) -> list[Array]:
            network.load(weights)
            network.train(on)
            network.framework.seed(seed)
            if own:  # it may want gradients
                with network.quiet():
                    return [read(network.loss(inputs))]
            with network.still():
                return [read(v) for v in network.output(inputs)]

        return once

    ways = {"in evaluation mode": run(False, False), "in training mode": run(True, False)}
    if loss and network.own("loss") is not None:
        ways["in loss()"] = run(True, True)
    try:
        for where, once in ways.items():
            if place := _changes(network, once):
                raise UserError(
                    f"{network.target.text}: draws random numbers or keeps state {where}, {place}, "
                    "so it cannot be called twice alike; make random numbers an input, and state a "
                    "buffer (dropout of nn is off already, but not one that is imported by name)"
                )
    finally:
        network.load(weights)
        network.train(False)


def _changes(network: Network, once: Run) -> str:
    """The place where a run gives something else each time, or draws numbers; '' if nowhere."""
    first = once(1)
    before = _drawn(network)
    network.framework.seed(1)
    drawn = before != _drawn(network)  # by PyTorch, NumPy or Python; of Jittor's nothing is known
    others = [_apart(first, once(seed)) for seed in SEEDS]
    rounding = 0.0
    if any(others):
        rounding = min(10 * _apart(first, once(1)), ROUNDING)
    if not drawn and max(others) <= rounding:
        return ""
    for seed in SEEDS:
        seen: list[list[Call]] = [[], []]
        for k, calls in zip((1, seed), seen, strict=True):
            with network.watched(calls.append):
                once(k)
        if place := _place(network, seen, rounding):
            return place
    return "in the network's own code"


def _drawn(network: Network) -> tuple[Any, ...]:
    """The states of the generators that can be seen."""
    numpy = np.random.get_state(legacy=False)["state"]
    state = (random.getstate(), numpy["pos"], numpy["key"].tobytes())
    if network.framework.is_jittor:
        return state
    return (*state, network.framework.lib.get_rng_state().numpy().tobytes())


def _apart(a: Sequence[Array], b: Sequence[Array]) -> float:
    """The largest difference, by the largest value of its array; infinite for other shapes."""
    if [x.shape for x in a] != [y.shape for y in b]:
        return np.inf
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if np.array_equal(x, y, equal_nan=x.dtype.kind == "f"):
            continue
        x, y = x.astype(np.float64), y.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = float(np.nanmax(np.abs(x - y)) / (np.nanmax(np.abs(x)) or 1.0))
        worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def _place(network: Network, seen: Sequence[Sequence[Call]], rounding: float) -> str:
    """The first layer with another result of the same arguments, or that is given others."""
    last = ""
    for a, b in zip(*seen, strict=False):
        if a.path != b.path:
            break
        kind = type(network.modules[a.path.partition("#")[0]]).__name__
        if _apart(a.taken, b.taken) > rounding:
            return f"in the code before layer '{a.path}' ({kind})"
        if _apart(a.made, b.made) > rounding:
            return f"first in layer '{a.path}' ({kind})"
        last = a.path
    return f"in the code after layer '{last}'" if last and _differ(*seen) else ""


def _differ(a: Sequence[Call], b: Sequence[Call]) -> bool:
    return [c.path for c in a] != [c.path for c in b]
