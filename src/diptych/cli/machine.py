"""`diptych doctor` and `diptych demo`: the first two commands to run on a machine."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from diptych.cli.common import DEVICE, FOLDER, JSON, OVERWRITE


@click.command(short_help="Train, sample and compare `tiny` with both backends.")
@click.option(
    "--out", type=FOLDER, default=Path("diptych-demo"), show_default=True, help="The output folder."
)
@click.option("--steps", type=int, help="Training steps per backend.  [default: the preset's]")
@DEVICE
@OVERWRITE
def demo(out: Path, steps: int | None, device: str, overwrite: bool) -> None:
    """Train `tiny` with both backends, sample both from the same noise, and compare them.

    An interrupted demo resumes; a finished one starts over.

    \b
    Example:
      diptych demo --out my-demo
    """
    from diptych.study.demo import run_demo

    page = run_demo(out, steps=steps, device=device, overwrite=overwrite)
    click.echo(f"\nThe two panels side by side: {page}")
    click.echo(f"To draw with them yourself, in a browser: diptych studio {shlex.quote(str(out))}")


@click.command(short_help="Check this machine, and say how to fix problems.")
@click.option("--prepare", is_flag=True, help="Compile Jittor now, unless it is compiled.")
@JSON
def doctor(prepare: bool, as_json: bool) -> None:
    """Check this machine, and name the command that fixes each problem.

    \b
    Examples:
      diptych doctor
      diptych doctor --prepare
      diptych doctor --json
    """
    from diptych.cli.doctor import report as checks

    if prepare:
        from diptych.backends.jittor import setup

        if not os.environ.get("JITTOR_HOME"):
            setup.forget_home()
        setup.prepare(verify=True)
    found = checks.diagnose()
    click.echo(checks.to_json(found) if as_json else checks.render(found))
    sys.exit(0 if checks.healthy(found) else 1)
