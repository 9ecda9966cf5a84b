"""`diptych sample`: an impossible solver or GIF request is one line, before a framework starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import panel_jobs
from commands import call


@pytest.mark.parametrize(
    "words, message",
    [
        (["--solver", "dpmpp", "--order", "3", "--steps", "2"], "needs 3 steps or more"),
        (["--solver", "dpmpp", "--order", "5"], "not order 5"),
        (["--solver", "plms", "--spacing", "karras"], "needs steps of equal length"),
        (["--solver", "unipc", "--spacing", "official-quad"], "visits timesteps twice"),
        (["--solver", "heun", "--eta", "1"], "has eta 0"),
        (["--threshold", "0.9", "--clip"], "choose one"),
        (["--show", "x0"], "add --gif"),
        (["--frames", "3"], "add --gif"),
        (["--gif", "--show", "eps"], "--show is 'eps'"),
        (["--gif", "--frames", "0"], "--frames is 0"),
    ],
)
def test_bad_settings_are_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    found = SimpleNamespace(config=panel_jobs.small(), sampler=None)
    monkeypatch.setattr("diptych.weights.find.find_weights", lambda *_: found)
    code, stdout, stderr = call(
        monkeypatch, capsys, "sample", "some", "--out", tmp_path / "out", *words
    )
    assert code == 2 and message in stderr and stdout == ""
    assert len(stderr.strip().splitlines()) == 1 and not (tmp_path / "out").exists()
