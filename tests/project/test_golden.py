"""Four training steps and the images of every solver against records: no move changes a number.

On the processor, framework and number of threads of the record, bits are compared; elsewhere the
losses and the images' root mean squares, within what other instruction sets change.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden import solvers
from golden.steps import steps

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "steps.json").read_text("utf-8"))
IMAGES = json.loads((FOLDER / "solvers.json").read_text("utf-8"))
PANELS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in GOLDEN]
ELSEWHERE = 2e-6  # relative; the two panels' losses of these steps are 1.3e-7 apart


@pytest.mark.slow
@pytest.mark.parametrize("backend", PANELS)
def test_four_steps_give_the_recorded_losses_and_weights(backend: str) -> None:
    found, golden = steps(backend), GOLDEN[backend]
    assert found["losses"] == pytest.approx(golden["losses"], rel=ELSEWHERE)
    assert sorted(found["sha256"]) == sorted(golden["sha256"])
    if found["where"] == golden["where"]:
        assert found == golden


@pytest.mark.parametrize("place", ["numpy", *PANELS])
def test_every_solver_draws_the_recorded_images(place: str) -> None:
    found, golden = solvers.solvers(place), IMAGES[place]
    assert sorted(found["images"]) == sorted(golden["images"])
    for name, (_, size) in golden["images"].items():
        assert found["images"][name][1] == pytest.approx(size, rel=1e-4), name
    if found["where"] == golden["where"]:
        assert found == golden
