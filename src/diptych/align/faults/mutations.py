"""Faults that are planted into one running backend to show that the ladder finds them.

Each is a change that people really make when they port a model. It replaces names in the modules
of the worker process for one pass and is then undone: the shipped code has no switch for any of
them. `rung` is the one that must fail; no earlier one may.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from diptych.align.faults import classes, engine, host, sampling, training
from diptych.align.faults import panel as faults_panel
from diptych.align.ladder.rungs import LADDER
from diptych.errors import UserError, nearest


class Patch:
    """Replaces attributes, and puts them back."""

    def __init__(self) -> None:
        self.undo: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace an existing attribute with `value`.

        Raises:
            TypeError: a function that cannot be called as the replaced one: its error at the call
                would pass for the fault's being caught.
        """
        original = getattr(owner, name)
        _check_call(original, value, f"{getattr(owner, '__name__', owner)}.{name}")
        self.undo.append((owner, name, original))
        setattr(owner, name, value)

    def original(self, owner: Any, name: str) -> Any:
        """The attribute's current value; it may be a name that a module imported."""
        return getattr(owner, name)

    def restore(self) -> None:
        """Undo all replacements, the newest first."""
        for owner, name, value in reversed(self.undo):
            setattr(owner, name, value)


def _check_call(original: Any, value: Any, name: str) -> None:
    try:
        wanted = inspect.signature(original).parameters.values()
        taken = inspect.signature(value)
    except (TypeError, ValueError):  # no functions, or of an extension without a signature
        return
    in_order = [p for p in wanted if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = {p.name: p for p in wanted if p.kind == p.KEYWORD_ONLY}
    try:
        taken.bind(*in_order, **by_name)
    except TypeError as error:
        raise TypeError(f"what is planted for {name} is called otherwise: {error}") from None


Plant = Callable[[Any, Patch], None]


@dataclass(frozen=True)
class Mutation:
    """One fault: its name, the rung that must catch it, its effect in words, and its code."""

    name: str
    rung: str
    what: str
    plant: Plant


def _table(*rooms: ModuleType) -> dict[str, Mutation]:
    rows = [row for room in rooms for row in room.ROWS]
    made = [Mutation(name, rung, what, plant) for name, rung, what, plant in rows]
    order = list(LADDER)
    return {m.name: m for m in sorted(made, key=lambda m: order.index(m.rung))}


MUTATIONS: dict[str, Mutation] = _table(host, faults_panel, classes, training, sampling)
OF_ENGINES: dict[str, Mutation] = _table(engine)  # in the graph, which panels do not have


def choose(names: Sequence[str], of_engine: bool = False) -> list[Mutation]:
    """The named mutations of panels, or of engines; `all` selects every one.

    Raises:
        UserError: if a name is unknown, or of the other kind.
    """
    table, others = (OF_ENGINES, MUTATIONS) if of_engine else (MUTATIONS, OF_ENGINES)
    for name in names:
        if name in others:
            kind = "a panel" if of_engine else "an engine, as in --backends torch,openvino"
            raise UserError(f"mutation '{name}' is only planted into {kind}")
        if name != "all" and name not in table:
            known = [*table, "all"]
            raise UserError(f"mutation '{name}' is not known{nearest(name, known)}")
    return [m for m in table.values() if "all" in names or m.name in names]


@contextmanager
def planted(name: str, panel: Any) -> Iterator[None]:
    """Plant the fault in this process while the block runs."""
    patch = Patch()
    try:
        (MUTATIONS | OF_ENGINES)[name].plant(panel, patch)
        yield
    finally:
        patch.restore()
