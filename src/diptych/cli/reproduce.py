"""`diptych reproduce`."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    ON,
    check_on,
    fail,
    part_of,
    say_again,
    show,
    split,
)
from diptych.cli.completion import PRESETS
from diptych.cli.sweep import numbers
from diptych.errors import UserError
from diptych.ranks import of_environment


@click.command(short_help="Run a whole study and write its report.")
@click.argument("preset", shell_complete=PRESETS)
@click.option("--backend", default="both", show_default=True, help="torch, jittor or both.")
@click.option("--out", type=FOLDER, help="The study's folder.  [default: studies/PRESET]")
@click.option("--steps", type=int, help="Train up to this step.  [default: the preset's epochs]")
@click.option("--epochs", type=int, help="Train up to the end of this epoch.")
@click.option("--seeds", default="0", show_default=True, help="One training per seed, as in 0,1,2.")
@click.option("--images", type=int, help="Images per score.  [default: 10000; quick: 32]")
@click.option("--repeats", type=int, help="Sample sets per score.  [default: 3; quick: 2]")
@click.option("--sample-steps", type=int, help="DDIM steps.  [default: 50; quick: 5]")
@click.option("--sweep-steps", help="Steps to sweep.  [default: 10,20,50,100; quick: 2,4]")
@click.option("--sweep-etas", help="Etas to sweep.  [default: 0,0.5,1; quick: 0,1]")
@click.option("--sweep-images", type=int, help="Images per cell.  [default: 2000; quick: 32]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--use", multiple=True, metavar="NAME=RUN", help="An existing training, "
              "as in torch-seed0=runs/mnist.")  # fmt: skip
@click.option("--inception", type=FOLDER, help="Inception weights, for FID.")
@click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
@click.option("--only", help="Only these stages: train, samples, compare, difference, scores, "
              "sweep, batches, profile, align.")  # fmt: skip
@click.option("--parallel", is_flag=True, help="Train both panels at the same time.")
@click.option("--part", metavar="K/N", help="Share the study with the other parts of N.")
@ON
@click.option("--quick", is_flag=True, help="Everything in a few minutes, at tiny size.")
@DEVICE
@JSON
def reproduce(preset: str, **options: Any) -> None:
    """Run a whole study of PRESET (mnist, fashion_mnist, cifar10), and write its report.

    Finished stages are not repeated: the same command resumes an interrupted study.

    With --part, N processes share it: each takes one stage after another that is ready and that
    nobody does, and the last writes the report. So do the processes that torchrun, mpirun or srun
    start, and Ray's workers with --on. Stages side by side on one machine slow each other's times.

    \b
    Examples:
      diptych reproduce mnist
      diptych reproduce mnist --quick --out quick
      diptych reproduce fashion_mnist --epochs 3 --seeds 0,1,2 --out study
      diptych reproduce mnist --use torch-seed0=runs/torch --use jittor-seed0=runs/jittor
      diptych reproduce mnist --out study --part 0/2
      diptych reproduce mnist --out study --on ray:10.0.0.1:6379
    """
    from diptych.errors import Interrupted
    from diptych.study.reproduce import reproduce as run
    from diptych.study.reproduce.parts import reproduce_part

    part, on = part_of(of_environment(), options["part"]), options["on"]
    check_on(on, part)
    if (part is not None or on is not None) and options["parallel"]:
        raise UserError("--parallel is for one process, and parts train side by side: leave it out")
    request = study_request(preset, options)
    check_samplers(request)
    out = options["out"] or Path("studies") / preset
    try:
        if on is not None:
            study = on_cluster(on, request, out.resolve())
        elif part is None:
            study = run(request, out.resolve(), parallel=options["parallel"])
        else:
            study = reproduce_part(request, out.resolve(), part)
    except Interrupted as stop:
        fail(str(stop), stop.exit_code)
    lines = [
        f"{stage['name']:<32}{stage['state']:<9}{stage.get('seconds', 0.0):9.1f} s  "
        f"{stage.get('reason', '')}".rstrip()
        for stage in study["stages"]
    ]
    page = out / "report" / "index.html"
    if part is not None and any(stage["state"] == "waiting" for stage in study["stages"]):
        lines.append("\nother parts are at work on what is waiting")
    lines.append(f"\nstudy: {out}" + (f", report: {page}" if page.is_file() else ""))
    show(study, options["as_json"], "\n".join(lines))


def on_cluster(on: str, request: Any, out: Path) -> dict[str, Any]:
    """Run a study on a cluster; the content of study.json."""
    from diptych.machine.cluster import open_cluster
    from diptych.study.reproduce.on_cluster import reproduce_on

    with open_cluster(on) as cluster:
        study, again = reproduce_on(cluster, request, out)
    say_again(again, "parts")
    return study


def study_request(preset: str, options: dict[str, Any]) -> Any:
    """The `StudyRequest` for these options."""
    from diptych.backends import BACKENDS
    from diptych.study.reproduce.request import StudyRequest

    if options["steps"] is not None and options["epochs"] is not None:
        raise UserError("--steps and --epochs exclude each other; choose one")
    sizes: dict[str, Any] = {}
    if options["quick"]:
        sizes = {"images": 32, "repeats": 2, "sample_steps": 5, "sweep_steps": "2,4",
                 "sweep_etas": "0,1", "sweep_images": 32}  # fmt: skip
    keys = ("images", "repeats", "sample_steps", "sweep_steps", "sweep_etas", "sweep_images")
    sizes |= {key: options[key] for key in keys if options[key] is not None}
    backend = options["backend"]
    return StudyRequest(
        preset,
        backends=BACKENDS if backend == "both" else (backend,),
        seeds=_seeds(options["seeds"]),
        steps=options["steps"],
        epochs=options["epochs"],
        overrides=tuple(options["overrides"]),
        use=tuple(_linked(word) for word in options["use"]),
        inception=_absolute(options["inception"]),
        data=_absolute(options["data"]),
        device=options["device"],
        quick=options["quick"],
        only=split(options["only"]),
        **sizes,
    )


def check_samplers(request: Any) -> None:
    """Refuse impossible steps and etas before the training that precedes their use."""
    from diptych.diffusion.schedule import make_schedule
    from diptych.sampling.options import SamplerOptions
    from diptych.sampling.sampler import choose_sampler

    steps = numbers("sweep-steps", request.sweep_steps, whole=True)
    etas = numbers("sweep-etas", request.sweep_etas, whole=False)
    for name, values in (("sweep-steps", steps), ("sweep-etas", etas)):
        if not values or len(set(values)) < len(values):
            raise UserError(f"--{name}: give one or more different values, as in 10,20,50")
    config = request.config()
    schedule = make_schedule(config.diffusion)
    for count, eta in [(request.sample_steps, None), *product(steps, etas)]:
        options = SamplerOptions(solver="ddim", steps=int(count), eta=eta)
        choose_sampler(options, config)[0].card(schedule)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--seeds {text}: give whole numbers with commas, as in 0,1,2") from error


def _linked(word: str) -> tuple[str, str]:
    name, equals, folder = word.partition("=")
    if not equals or not folder:
        raise UserError(f"--use {word}: expected NAME=RUN, as in torch-seed0=runs/mnist")
    return name, str(Path(folder).resolve())


def _absolute(path: Path | None) -> str | None:
    """The absolute path: stages run in the study's folder, where a relative one would fail."""
    return None if path is None else str(path.resolve())
