"""The command line whose streams are full or closed: one line or silence, and a clear exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diptych.cli import cli
from diptych.weights.find import find_weights

ZOO = "inspect zoo:mnist-torch --json"
WRONG = "inspect nothing-there"


def shell(arguments: str, streams: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `diptych ARGUMENTS STREAMS` in a shell."""
    command = f"{sys.executable} -m diptych {arguments} {streams}"
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_a_full_stdout_is_one_line_for_each_verb(tmp_path: Path, verb: str) -> None:
    code, _, said = shell(f"{verb} --help", ">/dev/full", tmp_path)
    assert (code, said.count("\n")) == (1, 1) and "writing the output: the disk is full" in said


@pytest.mark.parametrize(
    "arguments, streams, code, lines",
    [
        (ZOO, ">/dev/full", 1, 1),
        (ZOO, ">&-", 0, 0),
        (ZOO, ">&- 2>&-", 0, 0),
        (ZOO, "2>&-", 0, 0),
        (ZOO, "<&- >&- 2>&-", 0, 0),
        (ZOO, "2>/dev/full", 0, 0),
        (ZOO, "| head -c 1 >/dev/null", 0, 0),
        (WRONG, "", 2, 1),
        (WRONG, ">/dev/full", 2, 1),
        (WRONG, "2>/dev/full", 2, 0),
        (WRONG, "2>&-", 2, 0),
        (WRONG, ">&- 2>&-", 2, 0),
    ],
)
def test_streams_that_take_nothing(
    tmp_path: Path, arguments: str, streams: str, code: int, lines: int
) -> None:
    found, _, said = shell(arguments, streams, tmp_path)
    assert (found, said.count("\n")) == (code, lines) and "Traceback" not in said


def test_a_closed_stream_does_not_end_up_in_a_file(tmp_path: Path) -> None:
    """The next file opened would else get its number, and what is printed with it."""
    code, _, _ = shell("convert zoo:mnist-torch w.safetensors", ">&- 2>&-", tmp_path)
    assert code == 0 and [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]
    found, zoo = find_weights(str(tmp_path / "w.safetensors")), find_weights("zoo:mnist-torch")
    assert found.facts()["weights_sha256"] == zoo.facts()["weights_sha256"]


@pytest.mark.parametrize("arguments", ["", "data"])
def test_without_arguments_the_help_is_printed(tmp_path: Path, arguments: str) -> None:
    code, out, said = shell(arguments, "", tmp_path)
    assert code == 0 and not said
    assert out == shell(f"{arguments} --help", "", tmp_path)[1] and out.count("\n") > 10


def test_names_that_are_not_utf8_are_shown(tmp_path: Path) -> None:
    code, _, said = shell("inspect $(printf '\\377\\376')", "", tmp_path)
    assert code == 2 and said.count("\n") == 1 and "\\udcff\\udcfe" in said
    code, out, _ = shell("convert zoo:mnist-torch $(printf '\\377').safetensors", "", tmp_path)
    assert code == 0 and "\\udcff" in out
