"""Commands of `diptych`, run in this process or in one of their own."""

from __future__ import annotations

import subprocess
import sys

from diptych import cli


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
