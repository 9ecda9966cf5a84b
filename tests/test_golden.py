"""Four training steps of each backend against recorded losses and hashes: refactors change no bit.

On the recorded processor, framework and number of threads, bits are compared; elsewhere the losses,
with a tolerance for the effect of other instruction sets over four steps.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from golden.steps import steps

GOLDEN = json.loads((Path(__file__).parent / "golden" / "steps.json").read_text("utf-8"))
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
