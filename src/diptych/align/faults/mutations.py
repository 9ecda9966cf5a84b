"""Faults that are planted into one running panel to show that the ladder finds them.

Each is a change that people really make when they port a model. It is put in place by replacing
names in the modules of the subject's process, for one pass, and taken back: the shipped code has
no switch for any of them. `rung` is the one that must fail; no earlier one may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diptych.align.ladder.rungs import LADDER
from diptych.errors import UserError, nearest


class Patch:
    """Replaces attributes, and puts them back."""

    def __init__(self) -> None:
        self.undo: list[tuple[Any, str, Any]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Put `value` in the place of an attribute that exists."""
        self.undo.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def original(self, owner: Any, name: str) -> Any:
        """What stands there now, also a name that a module has from elsewhere."""
        return getattr(owner, name)

    def restore(self) -> None:
        """All as it was."""
        for owner, name, value in reversed(self.undo):
            setattr(owner, name, value)


Plant = Callable[[Any, Patch], None]


@dataclass(frozen=True)
class Mutation:
    """One fault: its name, the rung that must catch it, and what it does."""

    name: str
    rung: str
    what: str
    plant: Plant


def _table() -> dict[str, Mutation]:
    from diptych.align.faults import classes, host, sampling, training
    from diptych.align.faults import panel as faults_panel

    rooms = (host, faults_panel, classes, training, sampling)
    rows = [row for room in rooms for row in room.ROWS]
    made = [Mutation(name, rung, what, plant) for name, rung, what, plant in rows]
    order = list(LADDER)
    return {m.name: m for m in sorted(made, key=lambda m: order.index(m.rung))}


MUTATIONS: dict[str, Mutation] = _table()


def choose(names: Sequence[str]) -> list[Mutation]:
    """The named mutations; all for `all`.

    Raises:
        UserError: an unknown name.
    """
    for name in names:
        if name != "all" and name not in MUTATIONS:
            known = [*MUTATIONS, "all"]
            raise UserError(f"mutation '{name}' is not known{nearest(name, known)}")
    return [m for m in MUTATIONS.values() if "all" in names or m.name in names]


@contextmanager
def planted(name: str, panel: Any) -> Iterator[None]:
    """The fault in place in this process while the block runs."""
    patch = Patch()
    try:
        MUTATIONS[name].plant(panel, patch)
        yield
    finally:
        patch.restore()
