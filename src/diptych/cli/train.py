"""`diptych train`."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    DETERMINISTIC,
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    QUIET,
    RESUME,
    SIZE,
    fail,
    say,
    show,
)
from diptych.cli.completion import PRESETS
from diptych.config.size import Size
from diptych.errors import STAGE, Interrupted, UserError, nearest
from diptych.ranks import of_environment


@click.command(short_help="Train a preset, a YAML file, or on a folder of pictures.")
@click.argument("preset", required=False, shell_complete=PRESETS)
@click.option("--backend", help="torch or jittor.  [default: with --resume the run's own; torch]")
@click.option("--out", "run", type=FOLDER, required=True, help="The run folder.")
@click.option("--steps", type=int, help="Train up to this step.")
@click.option("--epochs", type=int, help="Train up to the end of this epoch.")
@click.option("--seed", type=int, help="Keys weights, order and noise.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--size", type=SIZE, help="Own pictures: N, or HEIGHTxWIDTH.  [default: chosen]")
@click.option("--channels", type=int, help="Own pictures: 3, or 1 for grey.  [default: theirs]")
@click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
@click.option("--data-source", metavar="SOURCE", help="Another data.source, or its new location.")
@click.option("--allow-changed-data", is_flag=True, help="Resume even if the images have changed.")
@click.option("--skip-bad", is_flag=True, help="Leave out pictures that cannot be used.")
@click.option("--no-resources", is_flag=True, help="Do not record resources and events.")
@click.option(
    "--histograms",
    type=click.IntRange(0),
    default=500,
    show_default=True,
    help="TensorBoard: gradients every N steps, each costing about one step; 0: none.",
)
@click.option("--mlflow", metavar="URI", help="Also track the run with MLflow, if installed.")
@DETERMINISTIC
@click.option("--export", is_flag=True, help="Also write loss_step.txt and metrics.csv at the end.")
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def train(
    preset: str | None,
    backend: str | None,
    run: Path,
    steps: int | None,
    epochs: int | None,
    seed: int | None,
    overrides: tuple[str, ...],
    size: Size | None,
    channels: int | None,
    data: Path | None,
    data_source: str | None,
    allow_changed_data: bool,
    skip_bad: bool,
    no_resources: bool,
    histograms: int,
    mlflow: str | None,
    deterministic: bool,
    export: bool,
    device: str,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train PRESET: a preset's name, a YAML file of ours or of the official DDIM code, or your own
    pictures (a folder, an .npz, folder:PATH, npz:PATH, packed:PATH or hf:NAME), for which settings
    are chosen and shown.

    \b
    Examples:
      diptych train tiny --out runs/tiny
      diptych train photos --size 64 --out runs/photos
      diptych train photos --size 48x64 --out runs/wide
      diptych train mnist --backend jittor --out runs/jittor --epochs 3
      diptych train mnist --out runs/dropout --set model.dropout=0.1 --set train.lr=1e-4
      diptych train --out runs/tiny --resume --epochs 10
      torchrun --nproc-per-node 2 -m diptych train mnist --out runs/two
      mpirun -np 2 diptych train mnist --backend jittor --out runs/two-jittor
    """
    from diptych.runs.folder import backend_of_run
    from diptych.training.callbacks.usual import Recording
    from diptych.training.loop import train as run_training

    for key, value in (
        ("data.source", data_source),
        ("data.image_size", size),
        ("data.channels", channels),
        ("data.skip_bad", skip_bad or None),
    ):
        if value is not None:
            overrides = (*overrides, f"{key}={json.dumps(value)}")
    backend = backend_of_run(run, backend, resume)
    asked = (data_source is not None, size is not None or channels is not None)
    config = train_config(preset, run, steps, epochs, seed, overrides, resume, data, asked)
    try:
        result = run_training(
            config,
            run,
            backend,
            device=device,
            deterministic=deterministic,
            resume=resume,
            overwrite=overwrite,
            allow_changed_data=allow_changed_data,
            data_dir=data,
            progress=not quiet,
            recording=Recording(not no_resources, histograms, mlflow),
        )
    except Interrupted as stop:
        again = f"diptych train --out {shlex.quote(str(run))} --backend {backend} --resume"
        on = f"; go on with: {again}"
        if not of_environment().alone:
            on = "; go on with the same command and --resume"
        fail(f"{stop}{'' if os.environ.get(STAGE) else on}", stop.exit_code)
    if not of_environment().first:
        return
    if export:
        from diptych.runs.export import export as write

        write(run)
    facts = {
        "run": str(run),
        "step": result.step,
        "loss": result.loss,
        "checkpoint": str(result.checkpoint),
    }
    show(facts, as_json, f"trained to step {result.step}, loss {result.loss:.4f}: {run}")


def train_config(
    preset: str | None,
    run: Path,
    steps: int | None,
    epochs: int | None,
    seed: int | None,
    overrides: tuple[str, ...],
    resume: bool,
    data: Path | None = None,
    asked: tuple[bool, bool] = (False, False),
) -> Any:
    """The config for a call of `train`; what is chosen for own pictures is said.

    Args:
        asked: whether --data-source was given, and --size or --channels.
    """
    from diptych.config.load import is_there, preset_names
    from diptych.training.own_pictures import choose_for, is_pictures
    from diptych.weights.formats import read_config

    if steps is not None and epochs is not None:
        raise UserError("--steps and --epochs exclude each other; choose one")
    changes = list(overrides)
    changes += [] if steps is None else [f"train.steps={steps}"]
    changes += [] if epochs is None else [f"train.epochs={epochs}", "train.steps=null"]
    changes += [] if seed is None else [f"seed={seed}"]
    begun = resume and (run / "config.yaml").is_file()
    if preset is not None and is_pictures(preset):
        if asked[0]:
            raise UserError(f"--data-source, and {preset} names pictures already; give one of them")
        tell = say if of_environment().first else lambda line: None
        chosen = choose_for(preset, changes, data, tell, run if resume else None)
        return read_config(chosen.preset, [*chosen.overrides, *changes])
    if preset is not None and preset not in preset_names():
        path = Path(preset)
        if path.suffix not in (".yaml", ".yml") and not is_there(path):
            raise UserError(
                f"{preset}: no such folder or file of pictures, and no preset has this name"
                f"{nearest(preset, preset_names())}"
            )
    if asked[1]:
        raise UserError(
            "--size and --channels are for own pictures; with a preset or a YAML file use --set "
            "data.image_size=N (or HEIGHTxWIDTH) and --set data.channels=N"
        )
    if preset is None:
        if not begun:
            if resume:
                raise UserError(f"{run}: holds no run to resume (no config.yaml)")
            raise UserError("which preset? For example: diptych train tiny --out RUN")
        preset = str(run / "config.yaml")
    return read_config(preset, changes)
