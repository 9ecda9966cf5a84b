"""`diptych sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    BACKEND,
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    QUIET,
    RESUME,
    SOLVERS,
    SPACINGS,
    USUAL,
    show,
)
from diptych.cli.pictures import PICTURES, chosen_pictures
from diptych.cli.starts import STARTS, Start
from diptych.errors import UserError


@click.command(short_help="Draw images from a run, a zoo model or a checkpoint.")
@click.argument("source")
@BACKEND
@click.option("--solver", help=f"{SOLVERS}  [default: dpmpp-sde; with --eta: ddim]")
@click.option("--steps", type=int, help="[default: dpmpp-sde: 15; ddpm: all; others: 50]")
@click.option("--order", type=int, help="2 or 3, for dpmpp and unipc.  [default: 2]")
@click.option("--eta", type=float, help="DDIM's noise, 0 or more.  [default: 0; ddpm: 1]")
@click.option("--spacing", help=f"{SPACINGS}  [default: {USUAL}]")
@click.option("--clip/--no-clip", default=None, help="Clip each predicted image.  [default: no]")
@click.option("--threshold", type=float, help="Dynamic thresholding: a quantile such as 0.995.")
@click.option("--class", "classes", help="7, a list 0,1,2 (by turns) or all.  [default: all]")
@click.option("--guidance", type=float, help="Of the class: 0 none, 2 strong.  [default: 1]")
@click.option("--num", type=int, help="How many images.  [default: 64; of --latents: all]")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Keys all noise.",
)
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@click.option("--out", type=FOLDER, help="The folder.  [default: below the run]")
@click.option("--raw", is_flag=True, help="The weights as trained, not their moving average.")
@click.option("--config", help="Preset or YAML (ours or official) for a bare file of weights.")
@click.option("--npz", is_flag=True, help="Also all images in one images.npz (uint8, NHWC).")
@PICTURES
@STARTS
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def sample(
    source: str,
    backend: str,
    solver: str | None,
    steps: int | None,
    order: int | None,
    eta: float | None,
    spacing: str | None,
    clip: bool | None,
    threshold: float | None,
    classes: str | None,
    guidance: float | None,
    num: int | None,
    seed: int,
    batch: int,
    out: Path | None,
    raw: bool,
    config: str | None,
    npz: bool,
    device: str,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw images from SOURCE: a run, a checkpoint, zoo:NAME, pretrained:NAME, a file of weights,
    or a folder of diffusers.

    Without any option of the sampler, a zoo model is sampled as its manifest recommends, a folder
    of diffusers as its scheduler does.

    \b
    Examples:
      diptych sample zoo:mnist-torch --out digits
      diptych sample runs/tiny --solver dpmpp --order 3 --steps 15 --spacing logsnr --out fast
      diptych sample runs/tiny --solver ddpm --num 100 --seed 1 --out samples
      diptych sample runs/jittor --backend jittor --steps 20 --eta 0.5 --npz
      diptych sample runs/conditional --class 7 --guidance 2 --out sevens
      diptych sample ema.ckpt --config cifar10.yml --num 16 --out cifar
      diptych sample zoo:mnist-torch --gif --strip --show both --nearest --out pictures
      diptych sample zoo:mnist-torch --interpolate 3,7 --frames-between 8 --out between
      diptych sample zoo:mnist-torch --from photo.png --level 0.5 --num 8 --out variants
    """
    from diptych.files import check_folder
    from diptych.generate.samples import Request, default_folder, sample_to
    from diptych.model import load
    from diptych.weights.find import find_weights
    from diptych.weights.formats import read_config

    settings = read_config(config, for_training=False) if config else None
    found = find_weights(source, settings, raw)
    options = {"solver": solver, "steps": steps, "order": order, "eta": eta}
    options |= {"spacing": spacing, "clip": clip, "threshold": threshold}
    pictures = chosen_pictures(given, found.config)
    start = Start(given, found, seed, num)
    sampler = start.walk(choose_sampler(found, options, classes, guidance, start.sampler))
    begin, num = start.make(sampler)
    request = Request(sampler, num, seed, batch, start=begin, **pictures)
    if out is None:
        if source.startswith("zoo:") or not Path(source).is_dir():
            raise UserError(f"{source}: where to? Give a folder with --out")
        out = default_folder(Path(source), request)
    check_folder(out, resume=resume, overwrite=overwrite)  # before the framework's slow start
    model = load(source, backend, config=settings, device=device, raw=raw)
    manifest = sample_to(
        model, request, out, resume=resume, overwrite=overwrite, npz=npz, progress=not quiet
    )
    text = (
        f"{num} images in {out}, {manifest['network_calls']} network calls each{_twice(sampler)}, "
        f"{manifest['seconds_per_image']:.3f} s an image"
    )
    show({"out": str(out), **manifest}, as_json, text)


def _twice(sampler: Any) -> str:
    return " of two evaluations (guidance)" if sampler.guided else ""


def choose_sampler(
    found: Any,
    options: dict[str, Any],
    classes: str | None = None,
    guidance: float | None = None,
    instead: dict[str, Any] | None = None,
) -> Any:
    """The sampler of the options given; with none, what the model's manifest recommends.

    `instead` stands in place of the recommendation and fills in what the options leave open.
    """
    from diptych.diffusion.classes import parse_classes
    from diptych.sampling.sampler import make_sampler

    given = {name: value for name, value in options.items() if value is not None}
    recommended = instead is None and not given and bool(found.sampler)
    given = found.sampler if recommended else given
    if instead is not None:
        given = {k: v for k, v in instead.items() if v is not None} | given
    told: dict[str, Any] = {"classes": parse_classes(classes), "guidance": guidance}
    told = {name: value for name, value in told.items() if value is not None}
    if classes is not None and guidance == 0:
        raise UserError("--guidance 0 draws without a class; leave out --class, or guide by 1")
    if classes is not None and guidance is None:
        given.pop("guidance", None)  # what a start implies of networks that are told no class
    config = found.config
    words = ", ".join(f"{name} {value}" for name, value in given.items())
    told |= {"num_classes": config.model.num_classes, "timesteps": config.diffusion.timesteps}
    sampler = make_sampler(**given | told, ends_in_noise=config.diffusion.zero_terminal_snr)
    if getattr(found, "note", None):
        click.echo(f"note: {found.note}", err=True)
    if recommended:
        click.echo(f"sampling as this model recommends: {words}", err=True)
    return sampler
