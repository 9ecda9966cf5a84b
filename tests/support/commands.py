"""Commands of `diptych`, run in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import diptych
from diptych import cli

PACKAGE = Path(diptych.__file__).parent


def call(monkeypatch, capsys, *words):
    """Exit code, stdout and stderr of a command, run in this process."""
    monkeypatch.setattr(sys, "argv", ["diptych", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = stop.code or 0
    out, err = capsys.readouterr()
    return code, out, err


def shell(*words):
    """The same in a process of its own, for commands that load a framework."""
    return subprocess.run(
        [sys.executable, "-m", "diptych", *map(str, words)], capture_output=True, text=True
    )


def align(*words, package=PACKAGE, cwd=None):
    """`diptych align ...` in a process of its own, with a package at any place."""
    environment = {**os.environ, "PYTHONPATH": str(package.parent)}
    return subprocess.run(
        [sys.executable, "-m", "diptych", "align", *map(str, words)],
        capture_output=True, text=True, env=environment, cwd=cwd,
    )  # fmt: skip
