"""`diptych sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    ARITHMETIC,
    AT_ONCE,
    DEVICE,
    FOLDER,
    JSON,
    ON,
    OVERWRITE,
    OWN_BACKEND,
    QUIET,
    RAW,
    RESUME,
    SEED,
    backend_of,
    check_on,
    check_parts_folder,
    chosen_options,
    part_of,
    sampler_options,
    say,
    say_again,
    show_parts_folder,
)
from diptych.cli.completion import MODELS
from diptych.cli.pictures import PICTURES, chosen_pictures
from diptych.cli.starts import STARTS, Start
from diptych.errors import UserError
from diptych.ranks import of_environment


@click.command(short_help="Draw images from a run, a zoo model or a checkpoint.")
@click.argument("source", shell_complete=MODELS)
@OWN_BACKEND
@sampler_options()
@click.option("--num", type=int, help="Number of images.  [default: 64; with --latents: all]")
@SEED
@click.option(
    "--batch",
    **AT_ONCE,
    help="Images at once.",
)
@click.option("--part", metavar="K/N", help="Draw part K of N, from 0; the last completes OUT.")
@ON
@click.option("--out", type=FOLDER, help="The folder.  [default: below the run]")
@RAW
@click.option("--config", help="Preset or YAML (ours or official) for a bare file of weights.")
@click.option("--npz", is_flag=True, help="Also write all images to one images.npz (uint8, NHWC).")
@PICTURES
@STARTS
@ARITHMETIC
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def sample(
    source: str,
    backend: str | None,
    num: int | None,
    seed: int,
    batch: int | None,
    part: str | None,
    on: str | None,
    out: Path | None,
    raw: bool,
    config: str | None,
    npz: bool,
    precision: str,
    deterministic: bool,
    device: str,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Draw images from SOURCE: a run, a checkpoint, zoo:NAME, pretrained:NAME, a file of weights,
    or a folder of diffusers.

    A zoo model is sampled as its manifest recommends, a folder of diffusers as its scheduler does;
    each option overrides one setting. With --solver, only the given options count.

    \b
    Examples:
      diptych sample zoo:mnist-torch --out digits
      diptych sample runs/tiny --solver dpmpp --order 3 --steps 15 --spacing logsnr --out fast
      diptych sample runs/tiny --solver ddpm --num 100 --seed 1 --out samples
      diptych sample runs/jittor --backend torch --steps 20 --eta 0.5 --npz
      diptych sample runs/conditional --class 7 --guidance 2 --out sevens
      diptych sample runs/digits --guide runs/guide --guidance 2 --out better
      diptych sample ema.ckpt --config cifar10.yml --num 16 --out cifar
      diptych sample zoo:mnist-torch --gif --strip --show both --nearest --out pictures
      diptych sample zoo:mnist-torch --interpolate 3,7 --frames-between 8 --out between
      diptych sample zoo:mnist-torch --num 50000 --out many --part 0/4
      diptych sample zoo:mnist-torch --num 50000 --out many --on ray
      torchrun --nproc-per-node 4 -m -- diptych sample zoo:mnist-torch --num 50000 --out many
      diptych sample zoo:mnist-torch --from photo.png --level 0.5 --num 8 --out variants
    """
    from diptych.generate.samples import SampleRequest, default_folder, sample_to
    from diptych.model import load
    from diptych.sampling.sampler import choose_sampler
    from diptych.weights.find import find_weights
    from diptych.weights.formats import read_config
    from diptych.weights.guides import guide_facts

    ranks = of_environment()
    own = part_of(ranks, part)
    check_on(on, own)
    settings = read_config(config, for_training=False) if config else None
    found = find_weights(source, settings, raw)
    options = chosen_options(given)
    if given["data"] is not None and given["source_image"] is None and not given["nearest"]:
        raise UserError("--data only applies to --nearest and --from; leave it out, or add one")
    pictures = chosen_pictures(given, found.config)
    start = Start(given, found, seed, num)
    chosen, said = choose_sampler(options, found.config, found.sampler, start.sampler)
    guide_facts(chosen.guide, found.config)  # refuses before the framework's slow start
    sampler = start.walk(chosen)
    begin, num = start.make(sampler)
    request = SampleRequest(sampler, num, seed, batch, start=begin, **pictures)
    if out is None:
        if source.startswith("zoo:") or not Path(source).is_dir():
            raise UserError(f"{source}: where to? Give a folder with --out")
        out = default_folder(Path(source), request, precision)
    # before the framework's slow start
    check_parts_folder(out, own, resume=resume, overwrite=overwrite)
    say(found.note and f"note: {found.note}")
    say(said)
    panel = backend_of(backend, source)
    how: dict[str, Any] = {
        "config": settings,
        "raw": raw,
        "precision": precision,
        "deterministic": deterministic,
    }
    if on is not None:
        if overwrite:
            raise UserError("--on begins an empty folder or goes on with one; empty --out first")
        manifest, again = sampled_on(
            on,
            source,
            panel,
            device,
            how,
            request,
            out,
            resume=resume,
            npz=npz,
            progress=not quiet,
        )
        say_again(again, "parts")
    else:
        model = load(source, panel, device=device, **how)
        manifest = sample_to(
            model,
            request,
            out,
            resume=resume,
            overwrite=overwrite,
            npz=npz,
            progress=not quiet and ranks.first,
            part=own,
        )

    def text(made: dict[str, Any]) -> str:
        return (
            f"{num} images in {out}, {made['network_calls']} network calls each{_guided(made)}, "
            f"{made['seconds_per_image']:.3f} s an image"
        )

    show_parts_folder(manifest, out, own, as_json, text)


def sampled_on(
    on: str,
    source: str,
    panel: str,
    device: str,
    how: dict[str, Any],
    request: Any,
    out: Path,
    **options: bool,
) -> tuple[dict[str, Any], int]:
    """Draw on a cluster; the manifest, and how often a part was tried again."""
    from diptych.generate.on_cluster import Weights, sample_on
    from diptych.machine.cluster import open_cluster

    with open_cluster(on) as cluster:
        weights = Weights(source, tuple(how.items()))
        return sample_on(cluster, weights, panel, request, out, device, **options)


def _guided(made: dict[str, Any]) -> str:
    more = made["network_evaluations"] - made["network_calls"]
    return f" and {more} more for guidance" if more else ""
