"""The command `diptych`: its verbs, their options, and how errors become one line and a code.

Verbs import what they need when they run, so that `diptych --help` is quick and loads no framework.
stdout is the result, stderr is progress. Exit codes: 0 well, 1 the machine's fault, 2 the user's,
130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from diptych._version import __version__
from diptych.errors import MachineError, UserError

FOLDER = click.Path(path_type=Path)
BACKEND = click.option("--backend", default="torch", show_default=True, help="torch or jittor.")
DEVICE = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:INDEX."
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
RESUME = click.option("--resume", is_flag=True, help="Go on with what is in the folder.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what is in the folder.")
QUIET = click.option("--quiet", is_flag=True, help="No progress bar.")


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        cli(prog_name="diptych", standalone_mode=False)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail("interrupted", 130)
    except (UserError, MachineError) as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(0)


def fail(message: str, code: int) -> None:
    """One line on stderr, and leave."""
    print(f"diptych: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def show(result: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on stdout: as JSON where a program may read it, else for people."""
    click.echo(json.dumps(result, indent=2) if as_json else text)


class Verbs(click.Group):
    """Names the nearest verb where one is misspelt."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            from diptych.errors import nearest

            raise UserError(f"verb '{args[0]}' is not known{nearest(args[0], list(self.commands))}")
        return super().resolve_command(ctx, args)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diptych")
def cli() -> None:
    """DDPM and DDIM in two mirrored frameworks, PyTorch and Jittor.

    \b
    Begin with:
      diptych doctor                                    what works on this machine
      diptych demo                                      both panels, side by side
      diptych sample zoo:mnist-torch --out digits       a trained model
      diptych train mnist --backend jittor --out run    your own
    """


@cli.command()
@click.argument("preset", required=False)
@BACKEND
@click.option("--out", "run", type=FOLDER, required=True, help="The run folder.")
@click.option("--steps", type=int, help="Train up to this step.")
@click.option("--epochs", type=int, help="Train up to the end of this epoch.")
@click.option("--seed", type=int, help="Keys weights, order and noise.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--data", type=FOLDER, help="Where the data is, before all other places.")
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
    device: str,
    resume: bool,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train PRESET (a preset's name or a YAML file) into a run folder.

    \b
    Examples:
      diptych train tiny --out runs/tiny
      diptych train mnist --backend jittor --out runs/jittor --epochs 3
      diptych train mnist --out runs/dropout --set model.dropout=0.1 --set train.lr=1e-4
      diptych train --out runs/jittor --backend jittor --resume --epochs 10
    """
    from diptych.train import Interrupted
    from diptych.train import train as run_training

    config = train_config(preset, run, steps, epochs, seed, overrides, resume)
    try:
        result = run_training(
            config,
            run,
            backend,
            device=device,
            resume=resume,
            overwrite=overwrite,
            data_dir=data,
            progress=not quiet,
        )
    except Interrupted as stop:
        fail(str(stop), stop.exit_code)
        return
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
    """The config that a call of `train` asks for."""
    from diptych.config import load_config

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
    return load_config(preset, changes)


@cli.command()
@click.argument("source")
@BACKEND
@click.option("--solver", default="ddim", show_default=True, help="ddim or ddpm.")
@click.option("--steps", type=int, help="Network calls.  [default: 50; ddpm: all timesteps]")
@click.option("--eta", type=float, help="DDIM's noise, 0 or more.  [default: 0; ddpm: 1]")
@click.option("--spacing", default="uniform", show_default=True, help="uniform, quad or trailing.")
@click.option("--clip", is_flag=True, help="Clip each predicted image to [-1, 1].")
@click.option("--num", type=int, default=64, show_default=True, help="How many images.")
@click.option("--seed", type=int, default=0, show_default=True, help="Keys all noise.")
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@click.option("--out", type=FOLDER, help="The folder.  [default: below the run]")
@click.option("--raw", is_flag=True, help="The weights as trained, not their moving average.")
@click.option("--config", help="Preset or YAML (ours or official) for a bare file of weights.")
@click.option("--npz", is_flag=True, help="Also all images in one images.npz (uint8, NHWC).")
@DEVICE
@RESUME
@OVERWRITE
@QUIET
@JSON
def sample(
    source: str,
    backend: str,
    solver: str,
    steps: int | None,
    eta: float | None,
    spacing: str,
    clip: bool,
    num: int,
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
) -> None:
    """Draw images from SOURCE: a run, a checkpoint, zoo:NAME, or a file of weights.

    \b
    Examples:
      diptych sample zoo:mnist-torch --out digits
      diptych sample runs/tiny --solver ddpm --num 100 --seed 1 --out samples
      diptych sample runs/jittor --backend jittor --steps 20 --eta 0.5 --npz
      diptych sample ema.ckpt --config cifar10.yml --num 16 --out cifar
    """
    from diptych.files import check_folder
    from diptych.interop import read_config
    from diptych.model import find_weights, load
    from diptych.sample import Request, default_folder, sample_to
    from diptych.sampler import make_sampler

    settings = read_config(config, for_training=False) if config else None
    found = find_weights(source, settings, raw)
    sampler = make_sampler(solver, steps, eta, spacing, clip, found.config.diffusion.timesteps)
    request = Request(sampler, num, seed, batch)
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
        f"{num} images in {out}, {manifest['network_calls']} network calls each, "
        f"{manifest['seconds_per_image']:.3f} s an image"
    )
    show({"out": str(out), **manifest}, as_json, text)


@cli.command()
@click.argument("run_a", type=FOLDER)
@click.argument("run_b", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The folder of the report.")
@click.option("--samples", type=FOLDER, nargs=2, help="A sample folder of each run.")
@click.option("--unmatched", is_flag=True, help="Runs that do not share their random draws.")
@OVERWRITE
@JSON
def compare(
    run_a: Path,
    run_b: Path,
    out: Path,
    samples: tuple[Path, Path] | None,
    unmatched: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare two runs step by step: losses, times, memory; figures and a page.

    \b
    Example:
      diptych compare runs/torch runs/jittor --out report
    """
    from diptych.report.compare import compare_runs

    result = compare_runs(
        run_a, run_b, out, samples=samples, overwrite=overwrite, matched=not unmatched
    )
    sentences = [entry["text"] for entry in result["sentences"]]
    show(dict(result), as_json, "\n".join([*sentences, f"report: {out / 'index.html'}"]))


@cli.command()
@click.option("--out", type=FOLDER, default=Path("diptych-demo"), show_default=True)
@click.option("--steps", type=int, help="Training steps a panel.  [default: the preset's]")
@DEVICE
@RESUME
@OVERWRITE
def demo(out: Path, steps: int | None, device: str, resume: bool, overwrite: bool) -> None:
    """Train `tiny` in both panels, sample both from the same noise, compare.

    \b
    Example:
      diptych demo --out my-demo
    """
    from diptych.demo import run_demo

    run_demo(out, steps=steps, device=device, resume=resume, overwrite=overwrite)


@cli.command()
@click.option("--prepare", is_flag=True, help="Compile Jittor now, if that was not done yet.")
@JSON
def doctor(prepare: bool, as_json: bool) -> None:
    """Say what works on this machine, and the command that mends what does not.

    \b
    Examples:
      diptych doctor
      diptych doctor --prepare
      diptych doctor --json
    """
    from diptych import doctor as checks

    if prepare:
        from diptych.jittor import setup

        setup.prepare()
    found = checks.diagnose()
    click.echo(checks.to_json(found) if as_json else checks.render(found))
    sys.exit(0 if checks.healthy(found) else 1)
