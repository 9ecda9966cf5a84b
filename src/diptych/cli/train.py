"""`diptych train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    BACKEND,
    DETERMINISTIC,
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    QUIET,
    RESUME,
    fail,
    show,
)
from diptych.errors import STAGE, Interrupted, UserError
from diptych.ranks import of_environment


@click.command(short_help="Train a preset or a YAML file of settings.")
@click.argument("preset", required=False)
@BACKEND
@click.option("--out", "run", type=FOLDER, required=True, help="The run folder.")
@click.option("--steps", type=int, help="Train up to this step.")
@click.option("--epochs", type=int, help="Train up to the end of this epoch.")
@click.option("--seed", type=int, help="Keys weights, order and noise.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--data", type=FOLDER, help="Folder that is searched first for the data.")
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
    backend: str,
    run: Path,
    steps: int | None,
    epochs: int | None,
    seed: int | None,
    overrides: tuple[str, ...],
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
    """Train PRESET (a preset's name, or a YAML file of ours or of the official DDIM code).

    \b
    Examples:
      diptych train tiny --out runs/tiny
      diptych train mnist --backend jittor --out runs/jittor --epochs 3
      diptych train mnist --out runs/dropout --set model.dropout=0.1 --set train.lr=1e-4
      diptych train --out runs/jittor --backend jittor --resume --epochs 10
      torchrun --nproc-per-node 2 -m diptych train mnist --out runs/two
      mpirun -np 2 diptych train mnist --backend jittor --out runs/two-jittor
    """
    from diptych.training.callbacks.usual import Recording
    from diptych.training.loop import train as run_training

    if data_source is not None:
        overrides = (*overrides, f"data.source={data_source}")
    if skip_bad:
        overrides = (*overrides, "data.skip_bad=true")
    config = train_config(preset, run, steps, epochs, seed, overrides, resume)
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
        on = f"; go on with: diptych train --out {run} --backend {backend} --resume"
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
) -> Any:
    """The config for a call of `train`."""
    from diptych.weights.formats import read_config

    if steps is not None and epochs is not None:
        raise UserError("--steps and --epochs exclude each other; choose one")
    if preset is None:
        if not (resume and (run / "config.yaml").is_file()):
            raise UserError("which preset? For example: diptych train tiny --out RUN")
        preset = str(run / "config.yaml")
    changes = list(overrides)
    changes += [] if steps is None else [f"train.steps={steps}"]
    changes += [] if epochs is None else [f"train.epochs={epochs}", "train.steps=null"]
    changes += [] if seed is None else [f"seed={seed}"]
    return read_config(preset, changes)
