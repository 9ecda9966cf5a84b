"""Golden losses in tests of a training of your own, of any framework.

    from diptych.testing import golden             # a pytest fixture

    def test_first_steps(golden):
        golden(train)                              # train() yields a loss per step

The record lies beside the test, in `golden/TEST.json`. It is written where DIPTYCH_GOLDEN=record is
in the environment (the test is then skipped, for it compared nothing), and compared otherwise: bit
by bit at the recorded place, within the tolerance elsewhere. A function is run twice when it is
recorded, to see whether its bits repeat; of an iterator that is not known, so it is compared within
the tolerance everywhere.

`record` and `check` do the same without pytest, which only `golden` and `GoldenLosses` need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.golden.function import check, record

if TYPE_CHECKING:
    from diptych.golden.fixture import GoldenLosses, golden

__all__ = ["GoldenLosses", "check", "golden", "record"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from diptych.golden import fixture

    return getattr(fixture, name)


def __dir__() -> list[str]:
    return __all__
