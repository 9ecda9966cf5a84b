"""Four training steps and the images of every solver against records: no move changes a number.

On the processor, framework and number of threads of the record, bits are compared; elsewhere the
losses, weights and moments within the record's tolerance, and the images' root mean squares within
what other instruction sets change.

    diptych golden record tiny --backend torch --steps 4 --set model.dropout=0.1 --rtol 2e-6 \\
        --out tests/golden/steps-torch.json

renews a record, which needs a change of numbers that CHANGELOG.md announces under "Numerics".
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diptych.golden.record import read_golden
from diptych.golden.trainings import check
from golden import solvers

FOLDER = Path(__file__).parents[1] / "golden"
IMAGES = json.loads((FOLDER / "solvers.json").read_text("utf-8"))
PANELS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("torch", "jittor")]
# One of the average and one of the resumed state, which losses alone would hide or show late.
FAULTS = ("ema_rate", "moments_forgotten")
ELSEWHERE = 2e-6  # relative; the two panels' losses of these steps are 1.3e-7 apart


@pytest.mark.slow
@pytest.mark.parametrize("backend", PANELS)
def test_four_steps_give_the_recorded_losses_and_weights(backend: str) -> None:
    golden = read_golden(FOLDER / f"steps-{backend}.json")
    assert golden.repeats and max(golden.tolerance.numbers["loss"]) <= ELSEWHERE
    verdict, faults = check(golden, mutations=FAULTS)
    assert verdict.passed, verdict.text()
    assert [name for name, each in faults.items() if each.passed] == []
    forgotten = faults["moments_forgotten"].first  # step 3, the first resumed one, goes astray
    assert forgotten is not None and (forgotten.step, forgotten.what) == (4, "loss")


@pytest.mark.parametrize("place", ["numpy", *PANELS])
def test_every_solver_draws_the_recorded_images(place: str) -> None:
    found, golden = solvers.solvers(place), IMAGES[place]
    assert sorted(found["images"]) == sorted(golden["images"])
    for name, (_, size) in golden["images"].items():
        assert found["images"][name][1] == pytest.approx(size, rel=1e-4), name
    if found["where"] == golden["where"]:
        assert found == golden
