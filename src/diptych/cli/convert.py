"""`diptych inspect` and `diptych convert`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import FOLDER, JSON, OVERWRITE, RAW, show
from diptych.errors import UserError

CONFIG = click.option("--config", help="Preset or YAML (ours or official), if SOURCE has none.")


@click.command(short_help="Tell what weights a file, folder or run holds.")
@click.argument("source")
@RAW
@JSON
def inspect(source: str, raw: bool, as_json: bool) -> None:
    """Describe SOURCE: a file of weights, a folder of diffusers, a run or pretrained:NAME.

    Nothing in a file is executed.

    \b
    Examples:
      diptych inspect ckpt.pth
      diptych inspect ddpm-cifar10-32 --json
    """
    from diptych.weights.inspect import inspect as look
    from diptych.weights.inspect import render

    facts = look(source, raw)
    show(facts, as_json, render(facts))


@click.command(short_help="Write weights in another form, bit for bit.")
@click.argument("source")
@click.argument("out", type=FOLDER)
@click.option(
    "--to",
    help="official, official-training, jittor, diffusers, safetensors, run, onnx or openvino.  "
    "[default: by OUT's suffix]",
)
@click.option("--ema", is_flag=True, help="The moving average, if there are both: the default.")
@RAW
@CONFIG
@click.option("--seed", type=int, help="Seed of the run that --to run makes.")
@OVERWRITE
@JSON
def convert(
    source: str,
    out: Path,
    to: str | None,
    ema: bool,
    raw: bool,
    config: str | None,
    seed: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the weights of SOURCE to OUT in another form, bit for bit.

    \b
    Examples:
      diptych convert runs/mnist mnist.safetensors
      diptych convert runs/cifar10 ddpm-cifar10 --to diffusers
      diptych convert model-790000.ckpt cifar10.pkl --config cifar10
      diptych convert zoo:mnist-torch mnist.onnx
      diptych convert zoo:mnist-torch mnist.xml --to openvino
      diptych convert exp/logs/cifar/ckpt.pth runs/cifar --to run --config cifar10.yml
    """
    from diptych.files import hold_place
    from diptych.weights.convert import convert as write
    from diptych.weights.formats import read_config

    if ema and raw:
        raise UserError("--ema and --raw exclude each other; choose one")
    if seed is not None and to != "run":
        raise UserError("--seed only applies to runs; add --to run")
    changes = [] if seed is None else [f"seed={seed}"]
    settings = read_config(config, changes, for_training=to == "run") if config else None
    with hold_place(out):
        facts = write(source, out, to, config=settings, raw=raw, overwrite=overwrite)
    kind = {"ema": " (moving average)", "raw": " (as trained)"}.get(facts.get("weights", ""), "")
    show(facts, as_json, f"{facts.get('form', facts['to'])}{kind}: {facts['out']}")
