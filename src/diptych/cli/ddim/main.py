"""`python -m diptych.ddim`: the options of the official main.py and of the Jittor reproduction.

Each call is translated to `diptych` commands, which are shown on stderr and then run: there is no
second implementation here. Only --interpolation and --sequence are drawn directly.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click

from diptych.cli import cli
from diptych.cli.ddim import translate
from diptych.cli.ddim.translate import Official, Options
from diptych.errors import UserError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", required=True, help="A file in configs/, a path, or cifar10.yml ...")
@click.option("--seed", type=int, default=1234, show_default=True, help="Random seed.")
@click.option("--exp", type=click.Path(path_type=Path), default="exp", show_default=True)
@click.option("--doc", default="", help="The name of the log folder, EXP/logs/DOC.")
@click.option("--comment", default="", help="A word for the log.")
@click.option("--verbose", default="info", help="info, debug, warning or critical.")
@click.option("--test", is_flag=True, help="Score EXP/image_samples/IMAGE_FOLDER (FID).")
@click.option("--sample", is_flag=True, help="Draw images.")
@click.option("--fid", is_flag=True, help="Images for an FID: exactly --num.")
@click.option("--interpolation", is_flag=True, help="Eleven images between two noises.")
@click.option("--sequence", is_flag=True, help="Each step's prediction of eight images.")
@click.option("--gif", is_flag=True, help="An 8x8 GIF from noise to images.")
@click.option("--resume_training", is_flag=True, help="Resume EXP/logs/DOC.")
@click.option("-i", "--image_folder", default="images", show_default=True)
@click.option("--ni", is_flag=True,
              help="Replace existing output unasked (--fid, --interpolation: go on).")  # fmt: skip
@click.option("--use_pretrained", is_flag=True, help="The published weights of the data set.")
@click.option("--sample_type", default="generalized", help="generalized or ddpm_noisy.")
@click.option("--skip_type", default="uniform", help="uniform or quad.")
@click.option("--timesteps", type=int, default=1000, show_default=True, help="Steps.")
@click.option("--eta", type=float, default=0.0, show_default=True)
@click.option("--backend", default="torch", show_default=True, help="torch or jittor.")
@click.option("--device", default="auto", show_default=True)
@click.option("--num", type=click.IntRange(1), help="Number of images.  [fid: 50000; gif: 64]")
def ddim(**given: Any) -> None:
    """Train, sample and score as the official DDIM repository's main.py does.

    \b
    Examples:
      python -m diptych.ddim --config cifar10.yml --exp DIR --doc NAME --ni
      python -m diptych.ddim --config cifar10.yml --exp DIR --doc NAME --sample --fid \\
          --timesteps 100 --eta 0 --ni
      python -m diptych.ddim --config church.yml --use_pretrained --sample --gif --backend jittor
    """
    options = Options(**given)
    translate.check(options)
    config = translate.find_config(options.config)
    click.echo(
        f"config {config.path}{f' ({options.comment})' if options.comment else ''}", err=True
    )
    for note in translate.notes(options, config):
        click.echo(f"note: {note}", err=True)
    if options.sample:
        _sample(options, config)
    elif options.test:
        _carry_out(translate.testing(options, config))
    else:
        _train(options, config)


def _train(options: Options, config: Official) -> None:
    config.read(training=True)  # report faults in it before asking to overwrite
    overwrite = not options.resume_training and _claim(options.logs, options.ni)
    link = options.exp / "tensorboard" / options.doc
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists() and not link.is_symlink():
        link.symlink_to(os.path.relpath(options.logs / "tensorboard", link.parent))
    for command in translate.training(options, config, overwrite):
        _carry_out(command)


def _sample(options: Options, config: Official) -> None:
    strip = options.interpolation or options.sequence
    keeps = options.fid or options.interpolation
    overwrite = not keeps and _claim(options.images, options.ni)
    if strip:
        return _strip(options, config, overwrite)
    _carry_out(translate.sampling(options, config, overwrite))
    if options.fid:  # a folder to score holds its N images and no other picture
        preview = options.images.with_name(f"{options.image_folder}-preview")
        preview.mkdir(exist_ok=True)
        for name in ("grid.png", "progress.png"):
            if (options.images / name).is_file():
                os.replace(options.images / name, preview / name)


def _strip(options: Options, config: Official, overwrite: bool) -> None:
    """Draw --interpolation or --sequence, which write no sample folder."""
    from diptych.cli.ddim import strips
    from diptych.model import load
    from diptych.sampling.sampler import make_sampler

    settings = config.read(training=False)
    words = translate.sampler(options)
    named = dict(zip(words[::2], words[1::2], strict=True))
    sampler = make_sampler(
        named["--solver"],
        options.timesteps,
        float(named["--eta"]) if "--eta" in named else None,
        named["--spacing"],
        timesteps=settings.diffusion.timesteps,
    )
    source = translate.source(options, config)
    raw = translate.raw(config) and not options.use_pretrained
    if (options.images / "manifest.json").is_file():
        raise UserError(f"{options.images}: holds samples; give another --image_folder")
    ours = "[0-9].png", "10.png", "[0-7]_[0-9]*.png"
    there = [path for path in options.images.glob("*") if not path.name.startswith(".")]
    strange = [path.name for path in there if not any(path.match(mine) for mine in ours)]
    if overwrite and strange:
        raise UserError(
            f"{options.images}: holds '{strange[0]}', which this command does not write, so it is "
            f"not overwritten; give another --image_folder"
        )
    model = load(source, options.backend, config=settings, device=options.device, raw=raw)
    options.images.mkdir(parents=True, exist_ok=True)
    for old in there if overwrite else ():
        old.unlink()
    draw = strips.interpolation if options.interpolation else strips.sequence
    count = draw(model, sampler, options.seed, options.images)
    click.echo(f"{count} images in {options.images}")


def _claim(folder: Path, ni: bool) -> bool:
    """True if the folder is to be replaced; asks the user unless `ni` is set."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        if not ni and not click.confirm(f"{folder} already exists. Overwrite?", err=True):
            click.echo(f"{folder} exists; nothing was done", err=True)
            raise click.exceptions.Exit(0)
    except click.Abort as error:  # no one can answer
        raise UserError(f"{folder} already exists; replace it with --ni") from error
    return True


def _carry_out(command: list[str]) -> None:
    """Show a `diptych` command and run it."""
    click.echo(f"diptych {shlex.join(command)}", err=True)
    cli.main(args=command, prog_name="diptych", standalone_mode=False)
