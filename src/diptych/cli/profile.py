"""`diptych profile`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import (
    DETERMINISTIC,
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    show,
    typed,
)
from diptych.cli.completion import PRESETS
from diptych.errors import UserError, nearest


@click.command(short_help="Time the phases of a training step, or name slow steps.")
@click.argument("source", shell_complete=PRESETS)
@click.option("--backend", help="torch or jittor.  [default: the run's own; torch]")
@click.option("--steps", type=int, default=20, show_default=True, help="Steps to profile.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
@click.option("--out", type=FOLDER, help="A JSON file.  [default: RUN/profile.json]")
@click.option("--outliers", is_flag=True, help="Name the causes of a run's slow steps instead.")
@click.option(
    "--slow", type=float, default=2.0, show_default=True, help="Slow: above this many medians."
)
@click.option("--precision", help="Of the network: fp32, tf32 or bf16.  [default: the config's]")
@DETERMINISTIC
@DEVICE
@OVERWRITE
@JSON
def profile(
    source: str,
    backend: str | None,
    steps: int,
    overrides: tuple[str, ...],
    data: Path | None,
    out: Path | None,
    outliers: bool,
    slow: float,
    precision: str | None,
    deterministic: bool,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Split the training step of SOURCE (a run or a preset) into its phases, and time them.

    With --outliers: read a run's records, and label each slow step with a cause or 'unexplained'.

    \b
    Examples:
      diptych profile runs/mnist --steps 50
      diptych profile mnist --backend jittor --out jittor.json
      diptych profile runs/mnist --outliers
    """
    from diptych.files import check_file, write_json
    from diptych.profiling.table import render, render_outliers

    check_given(outliers)
    if outliers:
        from diptych.profiling.outliers import attribute

        if out is not None:
            check_file(out, overwrite)
        found = attribute(Path(source), slow)
        if out is not None:
            write_json(out, found)
        show(found, as_json, render_outliers(found))
        return
    from diptych.config.load import load_config, preset_names
    from diptych.profiling.subject import ProfileRequest, run_profile

    run = Path(source)
    is_run = (run / "config.yaml").is_file()
    if not is_run and source not in preset_names() and not run.is_file():
        raise UserError(
            f"{source}: neither a run folder nor a preset{nearest(source, preset_names())}"
        )
    if not is_run:
        load_config(source)  # report faults in it before asking for --out
    if out is None and not is_run and not as_json:
        raise UserError(f"{source}: where to? Give a JSON file with --out, or --json")
    if out is None and is_run:
        out, overwrite = run / "profile.json", True  # the run's own file, which is replaced
    if out is not None:
        check_file(out, overwrite)
    request = ProfileRequest(
        source,
        backend,
        device,
        steps,
        overrides,
        data,
        precision,
        deterministic,
    )
    record = run_profile(request)
    if out is not None:
        write_json(out, record)
    show(record, as_json, render(record))


def check_given(outliers: bool) -> None:
    """Refuse options that only apply to the other task.

    Raises:
        UserError: names the first such option.
    """
    others = (
        ("backend", "steps", "overrides", "data", "device", "precision", "deterministic")
        if outliers
        else ("slow",)
    )
    for name in others:
        if typed(name):
            word = "set" if name == "overrides" else name
            where = "is not for --outliers" if outliers else "is for --outliers"
            raise UserError(f"--{word} {where}; leave it out")
