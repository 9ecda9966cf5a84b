"""A fault is planted so that only its own effect can be seen, never an error of its planting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import panel_jobs
from conftest import Panel
from diptych.align.faults.mutations import MUTATIONS, OF_ENGINES, Patch


def test_every_fault_is_called_as_what_it_replaces(panel: Panel) -> None:
    """Else its TypeError would count as the fault's being caught."""
    assert panel.call(panel_jobs.plant_all, panel.name) == list(MUTATIONS)


@pytest.mark.parametrize("name", OF_ENGINES)
def test_every_fault_of_engines_is_called_as_what_it_replaces(name: str) -> None:
    patch = Patch()
    OF_ENGINES[name].plant(None, patch)
    assert patch.undo
    patch.restore()


def test_a_function_that_is_called_otherwise_is_not_planted() -> None:
    def drawn(step: int, ranks: int = 1, *, first: int = 0) -> int:
        return step + ranks + first

    owner, patch = SimpleNamespace(drawn=drawn), Patch()
    for bad in (lambda step: 0, lambda step, ranks=1: 0, lambda step, ranks, other, first=0: 0):
        with pytest.raises(TypeError, match="drawn is called otherwise"):
            patch.set(owner, "drawn", bad)
        assert owner.drawn is drawn
    patch.set(owner, "drawn", lambda *given, **named: -1)
    assert owner.drawn(3) == -1
    patch.restore()
    assert owner.drawn is drawn
