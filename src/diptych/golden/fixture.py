"""The pytest fixture `golden`: a test's training against the record that lies beside the test.

    golden/MODULE.CLASS.TEST.json        a record's place; golden/NAME.json if the call gives a name

Records of an earlier Diptych lie in golden/TEST.json and are read there if the new place has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.golden.compare import Verdict, compare
from diptych.golden.function import Training, check, record
from diptych.golden.record import DEFAULT_RTOL, Trace

RECORDING = "DIPTYCH_GOLDEN"


class GoldenLosses:
    """The fixture's value: call it with a training to compare it with its record.

    Args:
        folder: the records' folder.
        name: the record's name if none is given.
        recording: write records instead of comparing.
        former: the name that an earlier Diptych gave the record; "": none.
    """

    def __init__(self, folder: Path, name: str, recording: bool, former: str = "") -> None:
        self.folder, self.name, self.recording, self.former = folder, name, recording, former
        self.recorded: list[Path] = []

    def __call__(
        self,
        training: Training,
        *,
        steps: int = 20,
        name: str = "",
        rtol: float = DEFAULT_RTOL,
        source: str = "",
    ) -> Verdict:
        """Compare a training's first steps with their record; fail naming the first difference.

        Args:
            training, steps, rtol, source: as in `record`; the record's own count when compared.
            name: the record's name; "": the test's. A second record of one test needs one.

        Returns:
            The verdict; while recording, that of the record on itself.
        """
        path = self.folder / f"{name or self.name}.json"
        if self.recording:
            return self._record(path, training, steps, rtol, source)
        old = self.folder / f"{self.former}.json"
        if not name and self.former and not path.is_file() and old.is_file():
            path = old
        if not path.is_file():
            pytest.fail(f"{path}: no record; write it with {RECORDING}=record", pytrace=False)
        verdict = check(path, training)
        if not verdict.passed:
            pytest.fail(f"{path}: {verdict.text()}", pytrace=False)
        return verdict

    def _record(
        self, path: Path, training: Training, steps: int, rtol: float, source: str
    ) -> Verdict:
        if path in self.recorded:
            raise UserError(
                f"{path}: was recorded a moment ago; name the second record of a test: "
                f"golden(training, name='other')"
            )
        made = record(path, training, steps=steps, rtol=rtol, source=source)
        self.recorded.append(path)
        arrays = {name: facts.model_dump() for name, facts in made.arrays.items()}
        return compare(made, Trace(made.numbers, arrays, made.place))

    def finish(self) -> None:
        """Skip a test that wrote records: it compared nothing."""
        if self.recorded:
            pytest.skip(f"recorded {', '.join(map(str, self.recorded))}: nothing was compared")


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name).strip("-")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[GoldenLosses]:
    """Compare a training's first steps with a record beside the test; see the module."""
    given = os.environ.get(RECORDING, "")
    if given not in ("", "record"):
        raise UserError(f"{RECORDING}={given}: expected 'record', or nothing")
    classes = [each.name for each in request.node.listchain() if isinstance(each, pytest.Class)]
    parts = [_plain(part) for part in (request.path.stem, *classes, request.node.name)]
    made = GoldenLosses(
        request.path.parent / "golden", ".".join(parts), given == "record", parts[-1]
    )
    yield made
    made.finish()
