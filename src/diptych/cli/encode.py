"""`diptych encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    OWN_BACKEND,
    QUIET,
    RAW,
    RESUME,
    backend_of,
    check_parts_folder,
    part_of,
    sampler_options,
    show_parts_folder,
)
from diptych.cli.completion import MODELS
from diptych.errors import UserError
from diptych.ranks import of_environment
from diptych.sampling.options import INVERTED


@click.command(short_help="Find the noise that DDIM turns into given images.")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--model", required=True, shell_complete=MODELS,
    help="A run, a checkpoint, zoo:NAME, a file of weights.",
)  # fmt: skip
@OWN_BACKEND
@sampler_options(
    *INVERTED,
    steps={"help": "Solver steps, each way.  [default: 50, or as many as listed]"},
)
@click.option(
    "--refine", type=int, default=1, show_default=True, help="Rounds that make a step more exact."
)
@click.option("--curve", help="Also measure the error at these steps, such as 10,20,50,100.")
@click.option("--num", type=int, help="Number of images, from the first.  [default: all]")
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@click.option("--part", metavar="K/N", help="Encode part K of N, from 0; the last completes OUT.")
@click.option("--out", type=FOLDER, required=True, help="The folder.")
@click.option(
    "--format", "form", default="safetensors", show_default=True, help="safetensors or npz."
)
@RAW
@click.option("--config", help="Preset or YAML (ours or official) for a bare file of weights.")
@click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone.")
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def encode(
    images: tuple[str, ...], model: str, backend: str | None, out: Path, **given: Any
) -> None:
    """Find the noise that deterministic DDIM turns into IMAGES, and measure the round-trip error.

    IMAGES are pictures, a folder of them, an .npz, or a data set such as mnist:test. `diptych
    sample --latents OUT` decodes the latents, unchanged or interpolated.

    With --part, N processes share the work, as do those of torchrun, mpirun or srun; the last one
    measures the curve.

    \b
    Examples:
      diptych encode mnist:test --num 10 --model zoo:mnist-torch --steps 100 --out codes
      diptych encode mnist:test --num 64 --model zoo:mnist-torch --curve 10,20,50,100 --out codes
      diptych encode mnist:test --model zoo:mnist-torch --out codes --part 0/4
      diptych encode photo.png other.png --model runs/mine --refine 3 --out codes
      diptych sample zoo:mnist-torch --latents codes --out decoded
      diptych sample zoo:mnist-torch --latents codes --interpolate 0,1 --out between
    """
    from diptych.diffusion.schedule import make_schedule, starts_in_noise
    from diptych.generate.encode import encode_to
    from diptych.generate.inputs import read_inputs
    from diptych.generate.roundtrip import EncodeRequest
    from diptych.model import load
    from diptych.network.plan import make_plan
    from diptych.sampling.inversion import make_inversion
    from diptych.weights.find import find_weights
    from diptych.weights.formats import read_config
    from diptych.weights.found_steps import read_spacing

    config = given["config"]
    settings = read_config(config, for_training=False) if config else None
    found = find_weights(model, settings, given["raw"])
    plan, diffusion = make_plan(found.config), found.config.diffusion
    schedule = make_schedule(diffusion)
    in_noise = starts_in_noise(schedule, diffusion.objective)
    spacing = None if given["spacing"] is None else read_spacing(given["spacing"])[0]
    made = [
        make_inversion(
            steps,
            spacing,
            given["refine"],
            diffusion.timesteps,
            ends_in_noise=in_noise,
        )
        for steps in [given["steps"], *curve_steps(given["curve"])]
    ]
    for one in made:
        one.sampler.check(schedule)
    inputs = read_inputs(
        images, plan.shape, given["num"], data_dir=given["data"], crop=found.config.data.crop
    )
    ranks = of_environment()
    part = part_of(ranks, given["part"])
    request = EncodeRequest(inputs, made[0], tuple(made[1:]), given["batch"], given["form"])
    resume, overwrite = given["resume"], given["overwrite"]
    check_parts_folder(out, part, resume=resume, overwrite=overwrite)  # before the slow start
    backend = backend_of(backend, model)
    loaded = load(model, backend, config=settings, device=given["device"], raw=given["raw"])
    manifest = encode_to(
        loaded,
        request,
        out,
        resume=resume,
        overwrite=overwrite,
        progress=not given["quiet"] and ranks.first,
        part=part,
    )
    show_parts_folder(manifest, out, part, given["as_json"], lambda made: _text(made, out))


def curve_steps(text: str | None) -> list[int]:
    """The numbers of `--curve`, ascending, without duplicates."""
    if text is None:
        return []
    try:
        return sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise UserError(f"--curve {text}: give whole numbers with commas, as in 10,20") from error


def _text(manifest: dict[str, Any], out: Path) -> str:
    lines = [
        f"{manifest['num']} latents in {out}, {manifest['network_calls']} network calls each "
        f"on the way up; mean squared error of the round trip {manifest['mse']:.2e}, pixels 0 to 1"
    ]
    for row in manifest.get("curve", []):
        lines.append(f"  {row['steps']:5d} steps  {row['mse']:.2e}")
    return "\n".join(lines)
