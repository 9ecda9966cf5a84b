"""`diptych denoise`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    OWN_BACKEND,
    QUIET,
    RAW,
    SEED,
    backend_of,
    show,
)
from diptych.cli.completion import MODELS
from diptych.errors import UserError


@click.command(short_help="Compare models by the error of their predicted image.")
@click.argument("models", nargs=-1, required=True, shell_complete=MODELS)
@click.option(
    "--images",
    help="Real images, such as mnist:test.  [default: those that the first model held out, else "
    "its test split]",
)
@click.option(
    "--num", type=click.IntRange(1), help="Number of images, evenly spread.  [default: 768, or all]"
)
@click.option(
    "--batch", type=click.IntRange(1), default=64, show_default=True, help="Images at once."
)
@SEED
@RAW
@click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone.")
@OWN_BACKEND
@DEVICE
@QUIET
@JSON
def denoise(models: tuple[str, ...], as_json: bool, data: Path | None, **given: Any) -> None:
    """Compare MODELS by the error of their predicted image at ten levels of noise.

    All see the same images with the same noise, and no sample is drawn: is one training as good
    as the other, in the other framework too? The first model is what the others are divided by.
    It says nothing of a sampler; for that see `diptych evaluate`.

    \b
    Examples:
      diptych denoise zoo:mnist-torch zoo:mnist-jittor
      diptych denoise runs/a runs/b runs/c --images mnist:test --num 200
      diptych denoise runs/cats --images folder:other-cats --json
    """
    from diptych.evaluation import denoising
    from diptych.model import load

    if len(set(models)) < len(models):
        raise UserError("a model is named twice; name each once")
    backend = backend_of(given["backend"], models[0])
    subjects = [
        denoising.Subject.of(name, load(name, backend, device=given["device"], raw=given["raw"]))
        for name in models
    ]
    pictures = denoising.open_pictures(subjects[0].config, given["images"], data)
    result = denoising.denoise(
        subjects, pictures.some(given["num"]), given["seed"], given["batch"], not given["quiet"]
    )
    show(result, as_json, denoising.render(result))
