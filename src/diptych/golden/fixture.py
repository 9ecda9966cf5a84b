"""The pytest fixture `golden`: a test's training against the record that lies beside the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.golden.compare import Verdict
from diptych.golden.function import Training, check, record
from diptych.golden.record import DEFAULT_RTOL

RECORDING = "DIPTYCH_GOLDEN"


class GoldenLosses:
    """The fixture's value: call it with a training to compare it with its record.

    Args:
        folder: the records' folder.
        name: the record's name if none is given.
        recording: write records instead of comparing.
    """

    def __init__(self, folder: Path, name: str, recording: bool) -> None:
        self.folder, self.name, self.recording = folder, name, recording

    def __call__(
        self, training: Training, *, steps: int = 20, name: str = "", rtol: float = DEFAULT_RTOL,
        source: str = "",
    ) -> Verdict:  # fmt: skip
        """Compare a training's first steps with their record; fail naming the first difference.

        Args:
            training, steps, rtol, source: as in `record`; the record's own count when compared.
            name: the record's name; "": the test's.
        """
        path = self.folder / f"{name or self.name}.json"
        if self.recording:
            record(path, training, steps=steps, rtol=rtol, source=source)
            pytest.skip(f"recorded {path}: nothing was compared")
        if not path.is_file():
            pytest.fail(f"{path}: no record; write it with {RECORDING}=record", pytrace=False)
        verdict = check(path, training)
        if not verdict.passed:
            pytest.fail(f"{path}: {verdict.text()}", pytrace=False)
        return verdict


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[GoldenLosses]:
    """Compare a training's first steps with a record beside the test; see the module."""
    given = os.environ.get(RECORDING, "")
    if given not in ("", "record"):
        raise UserError(f"{RECORDING}={given}: expected 'record', or nothing")
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name).strip("-")
    yield GoldenLosses(request.path.parent / "golden", name, given == "record")
