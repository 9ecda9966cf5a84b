"""Calls of a network with the inputs: those that it takes, and those for its loss alone.

A loss that hands inputs to the model as they are shows it: its first call, by place or by name, is
how the model is called outside it too. If it makes others of them first, the model takes as many as
it hands over; a port, those that the reference takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diptych.align.ports.framework import leaves
from diptych.errors import UserError
from diptych.types import Array


@dataclass(frozen=True)
class Input:
    """The place of an input in a call."""

    name: str


@dataclass(frozen=True)
class Way:
    """A call of the model: its arguments, with `Input`s for arrays."""

    args: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The inputs that the model takes, in order."""
        given = (*self.args, *self.named.values())
        return list(dict.fromkeys(v.name for v in given if isinstance(v, Input)))

    def filled(self, put: Callable[[str], Any]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments, with what `put` gives for each input."""

        def fill(value: Any) -> Any:
            return put(value.name) if isinstance(value, Input) else value

        return [fill(v) for v in self.args], {k: fill(v) for k, v in self.named.items()}


def way_of(network: Any, inputs: Mapping[str, Array]) -> Way:
    """The way to call a network with these inputs; its mode is evaluation afterwards.

    Raises:
        UserError: there are more than it takes, and no `loss` for them; or `loss` takes others.
    """
    own, names = network.own("loss"), list(inputs)
    if own is not None:
        _check_loss(network, own, names)
        seen = _seen(network, inputs)
        if isinstance(seen, Way):
            return seen
        names = network.usual or names[:seen]
    function = getattr(network.module, network.framework.call)
    most = ["input"] if type(network.module).__name__ == "Sequential" else _positional(function)
    if most is not None and own is None and len(names) > len(most):
        raise UserError(
            f"{network.target.text}: the model takes ({', '.join(most)}), but the inputs are "
            f"({', '.join(names)}); an input that only the loss takes needs a loss(model, "
            f"{', '.join(names)})"
        )
    return Way(tuple(Input(n) for n in (names if most is None else names[: len(most)])), {})


def _check_loss(network: Any, own: Any, names: list[str]) -> None:
    try:
        signature = inspect.signature(own)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(network.module, *names)
    except TypeError as error:
        raise UserError(
            f"{network.target.text}: loss() is given the model and all inputs "
            f"({', '.join(names)}), and takes ({', '.join(signature.parameters)}): {error}"
        ) from None


def _seen(network: Any, inputs: Mapping[str, Array]) -> Way | int | None:
    """The first call of the model by its loss, if that hands over inputs as they are; else the
    number of arrays in it; None if the loss does not call the model itself."""
    framework, key = network.framework, network.framework.call
    put = network.put(inputs)
    known = {id(value): Input(name) for name, value in zip(inputs, put, strict=True)}
    found: list[Way | int] = []
    forward = getattr(network.module, key)

    def observed(*args: Any, **named: Any) -> Any:
        arrays = list(leaves(framework, [args, named]))
        own = [v for v in (*args, *named.values()) if id(v) in known]
        args_ = tuple(known.get(id(v), v) for v in args)
        if own and len(own) == len(arrays):
            found.append(Way(args_, {k: known.get(id(v), v) for k, v in named.items()}))
        else:
            found.append(len(arrays))
        return forward(*args, **named)

    weights = network.weights()
    network.train(True)
    setattr(network.module, key, observed)
    try:
        with network.quiet():
            network.own("loss")(network.module, *put)
    finally:
        network.module.__dict__.pop(key, None)
        network.load(weights)
        network.train(False)
    return found[0] if found else None


def _positional(function: Any) -> list[str] | None:
    """The arguments that a function takes by position; None if it takes any number."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return None
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def one_number(network: Any, loss: Any) -> Any:
    """A loss, if it is one number.

    Raises:
        UserError: it is something else.
    """
    shape = tuple(getattr(loss, "shape", (0,)))
    if not network.framework.is_array(loss) or shape not in ((), (1,)):
        what = f"shape {shape}" if network.framework.is_array(loss) else type(loss).__name__
        raise UserError(f"{network.target.text}: loss() gave {what}, expected one number")
    return loss
