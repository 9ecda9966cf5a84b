"""Files of rows: which line counts as torn, and what a growing file gives at each reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.files import Tail, read_lines
from diptych.training.callbacks.journal import read_rows


def test_the_last_line_is_marked_and_broken_ones_carry_their_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": NaN}\n\n\xff\n{"a": 1, "a": 2}\n{"a"\n \n')
    found = list(read_lines(path))
    assert [line.number for line in found] == [1, 2, 3, 4, 5]
    assert [line.blank for line in found] == [False, True, False, False, False]
    assert [line.error is None for line in found] == [True, False, False, False, False]
    assert [line.last for line in found] == [False] * 4 + [True]
    assert all(line.ended for line in found)
    path.write_bytes(b'{"a": 1}\n{"a"')
    assert [line.ended for line in read_lines(path)] == [True, False]
    path.write_bytes(b" \n\n")
    assert not list(read_lines(path)) and not list(read_lines(tmp_path / "none"))


def test_a_journal_drops_a_last_line_only_if_it_was_not_ended(tmp_path: Path) -> None:
    """A resumed run must not lose a step without a word."""
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo')
    assert [row["step"] for row in read_rows(path)] == [1]
    path.write_text('{"step": 1, "loss": 1}\n{"step": 2, "lo\n')
    with pytest.raises(UserError, match="line 2: not a row of a journal"):
        read_rows(path)


def test_a_growing_file_gives_each_line_once_and_starts_anew_when_rewritten(tmp_path: Path) -> None:
    path, tail, forgotten = tmp_path / "rows.jsonl", Tail(), []

    def new() -> list[int]:
        return [line.value for line in tail.read(path, lambda: forgotten.append(True))]

    path.write_text("1\n2\n3")
    assert new() == [1, 2] and new() == []
    with path.open("a") as file:
        file.write("4\n5\n")
    assert new() == [34, 5] and len(forgotten) == 1
    path.write_text("7\n")
    assert new() == [7] and len(forgotten) == 2
    other = tmp_path / "other"
    other.write_text("8\n9\n10\n")
    other.replace(path)
    assert new() == [8, 9, 10] and len(forgotten) == 3
    assert [line.value for line in Tail(4).read(path)] == [10]
