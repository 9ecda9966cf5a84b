"""Packages that may be missing: one wording, and a broken one is not called missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.machine.packages import require


def test_what_is_missing_is_told_from_what_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole_extra.py").write_text("VALUE = 3")
    (tmp_path / "broken_extra.py").write_text("import not_there_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    assert require("whole_extra", "video").VALUE == 3
    with pytest.raises(UserError) as error:
        require("broken_extra", "video", where="--mp4", instead="or use --gif")
    assert str(error.value) == (
        "--mp4: broken_extra cannot be imported (No module named 'not_there_at_all'); "
        "pip install 'diptych[video]', or use --gif"
    )
    monkeypatch.setitem(sys.modules, "whole_extra", None)
    with pytest.raises(UserError) as error:
        require("whole_extra", "video")
    assert str(error.value) == "whole_extra is not installed; pip install 'diptych[video]'"
