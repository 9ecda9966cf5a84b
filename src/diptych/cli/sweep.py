"""`diptych sweep`."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    ON,
    OVERWRITE,
    QUIET,
    RESUME,
    backend_of,
    check_on,
    chosen_options,
    missing_parts,
    part_of,
    sampler_options,
    say,
    say_again,
    show,
)
from diptych.cli.completion import MODELS
from diptych.cli.evaluate import (
    DRAWING,
    MEASURE,
    MEASURED,
    check_reference,
    measure_settings,
    of_training,
    open_network,
)
from diptych.errors import MachineError, UserError
from diptych.machine.children import run_child
from diptych.ranks import Part, of_environment, unlaunched


@click.command(short_help="Time and score solvers, steps and eta.")
@click.argument("source", shell_complete=MODELS)
@sampler_options(
    solver={
        "multiple": True,
        "help": "Such as dpmpp:order=3 or ddim:clip; can be repeated.  [default: ddim]",
    },
    steps={"type": str, "help": "Solver steps.  [default: 10,20,50,100]"},
    eta={"type": str, "help": "DDIM's noise; only applies to ddim.  [default: 0]"},
)
@click.option("--calls", help="Network calls, instead of --steps; comparable between solvers.")
@click.option("--num", type=int, required=True, help="Images per cell in each repeat.")
@click.option("--repeats", type=int, default=1, show_default=True, help="Sample sets per cell.")
@MEASURE
@click.option("--batch", type=int, default=64, show_default=True, help="Images at once.")
@DRAWING
@click.option(
    "--backend",
    help="torch, jittor or both; or onnx or openvino, which only predict.  "
    "[default: the one that trained the model; torch]",
)
@DEVICE
@click.option("--part", metavar="K/N", help="Compute part K of N, from 0; the last completes OUT.")
@ON
@click.option("--for-both", is_flag=True, hidden=True)  # one panel of a sweep of both
@click.option("--out", type=FOLDER, required=True, help="The output folder.")
@RESUME
@OVERWRITE
@QUIET
@JSON
def sweep(source: str, **options: Any) -> None:
    """Time and score SOURCE over solvers, steps and eta, with one backend or both.

    SOURCE is a run, a checkpoint or zoo:NAME. Each cell is saved once complete; --resume computes
    the missing ones. --metrics none only measures seconds per image; scores can be added later in
    the same folder.

    With --part, N processes compute the cells j with j mod N = K of each backend. So do the
    processes that torchrun, mpirun or srun start.

    \b
    Examples:
      diptych sweep runs/mnist --num 2000 --features mnist --reference mnist:test --out sweep
      diptych sweep zoo:mnist-torch --steps 10,50 --eta 0,0.5,1 --num 1000 --backend both --out s
      diptych sweep runs/mnist --solver ddim --solver dpmpp:order=3:spacing=logsnr --calls 8,10 \\
          --num 1000 --features mnist --reference mnist:test --out solvers
      diptych sweep runs/mnist --num 2000 --metrics none --out times --part 0/4
      diptych sweep runs/mnist --num 2000 --metrics none --out times --on ray
    """
    from diptych.backends import BACKENDS, ENGINES
    from diptych.files import claim_folder, hold, hold_part
    from diptych.study.sweep import cells as sweeps
    from diptych.study.sweep import output, parts

    ranks = of_environment()
    part, on = part_of(ranks, options["part"]), options["on"]
    check_on(on, part)
    options["quiet"] = options["quiet"] or not ranks.first
    request = sweep_request(source, options)
    out, backend = options["out"], backend_of(options["backend"], source)
    if backend not in (*BACKENDS, *ENGINES, "both"):
        raise UserError(
            f"backend '{backend}' is not known; use {', '.join((*BACKENDS, *ENGINES))} or both"
        )
    planned = sweeps.cells_of(request)  # before the folder is begun
    if not planned.pairs:
        raise UserError(f"{'; '.join(planned.left_out)}: no cell is left; give other --calls")
    backends = BACKENDS if backend == "both" else (backend,)
    samples_out = options["samples_out"]
    if samples_out is None and source.startswith("zoo:"):
        samples_out = out / "samples"

    def on_cluster() -> None:
        from diptych.machine.cluster import open_cluster
        from diptych.study.sweep.on_cluster import Network, sweep_on

        def network(name: str) -> Network:
            return Network(
                open_network, (options["features"], name, options["device"], options["weights"])
            )

        for line in planned.left_out:
            say(f"{line}: left out")
        if request.scored and backend in ENGINES:
            say(f"features: computed by the panel of each worker, as {backend} only predicts")
        with open_cluster(on) as cluster:
            again = sweep_on(
                cluster,
                request,
                planned,
                out,
                backends,
                options["device"],
                network,
                samples_out=samples_out,
            )
        say_again(again, "cells")

    def compute(lock: int) -> None:
        if on is not None:
            on_cluster()
            return
        if backend == "both":
            for panel in BACKENDS:
                run_in_process_of_its_own(panel, lock, part)
            return
        sweeps.run_panel(
            request,
            out,
            backend,
            options["device"],
            lambda: open_network(
                options["features"], backend, options["device"], options["weights"]
            ),
            part=part,
            samples_out=samples_out,
            note=lambda text: click.echo(text, err=True),
        )

    if on is None:
        check_reference(options["reference"], options["data"])
    if options["for_both"]:  # the process that started this one holds the folder, and goes on
        with hold(out) if part is None else hold_part(out, str(part)) as lock:
            compute(lock)
        return
    if part is None:
        with hold(out) as lock:
            claim_folder(out, resume=options["resume"], overwrite=options["overwrite"])
            parts.check_begun(request, out, backends)
            compute(lock)
            cells = sweeps.read_cells(out)
            content = output.write_all(cells, out)
            parts.forget_parts(out)
    else:
        if options["overwrite"]:
            raise UserError("--overwrite would delete the other parts' cells; empty --out first")
        if not parts.sweep_part(planned, out, backends, part, compute, resume=options["resume"]):
            unfinished = {"out": str(out), "complete": False}
            show(unfinished, options["as_json"], missing_parts(part, out))
            return
        cells = sweeps.read_cells(out)
        content = output.content_of(cells)
    text = f"{output.render(cells)}\n\ntables and figures: {out}"
    show(content, options["as_json"], text)


def sweep_request(source: str, options: dict[str, Any]) -> Any:
    """The `Sweep` for these options."""
    from diptych.evaluation.feature_network import NO_NETWORK
    from diptych.evaluation.features.weights_file import file_sha256
    from diptych.generate.for_scoring import Drawing
    from diptych.study.sweep.cells import Sweep
    from diptych.study.sweep.variants import parse

    picked = {key: options[key] for key in MEASURED}
    scored = options["metrics"].strip() != "none"
    if not scored:
        _refuse_scoring(options)
        picked["metrics"] = "is"  # a placeholder for none: nothing is computed
    settings = of_training(measure_settings(**picked), source)
    settings.check_reference(options["reference"])
    swept = {name: options.pop(name) for name in ("solver", "steps", "eta")}
    drawing = Drawing(
        chosen_options(options), options["seed"], options["sample_batch"], options["raw"]
    )
    if swept["steps"] is not None and options["calls"] is not None:
        raise UserError("--steps and --calls both say how long to sample; give one of them")
    listed = {"steps": "10,20,50,100", "eta": "0"} | {
        k: v for k, v in swept.items() if v is not None
    }
    steps = tuple(int(n) for n in numbers("steps", listed["steps"], whole=True))
    asked = [] if options["calls"] is None else numbers("calls", options["calls"], whole=True)
    calls = tuple(int(n) for n in asked)
    etas = tuple(numbers("eta", listed["eta"], whole=False))
    variants = tuple(parse(text) for text in swept["solver"] or ("ddim",))
    by_network = scored and options["features"] != NO_NETWORK
    network = file_sha256(options["features"], options["weights"]) if by_network else None
    return Sweep(
        source,
        steps,
        etas,
        drawing,
        settings,
        options["reference"],
        variants,
        calls,
        scored,
        network,
    )


def _refuse_scoring(options: dict[str, Any]) -> None:
    for key in ("reference", "protocol", "weights", "train", "held_out", "mirrored"):
        if options[key] not in (None, False):
            raise UserError(
                f"--metrics none computes no scores; leave --{key.replace('_', '-')} out"
            )


def numbers(name: str, text: str, whole: bool) -> list[float]:
    """The numbers in a list such as 10,20,50."""
    try:
        return [int(part) if whole else float(part) for part in text.split(",")]
    except ValueError as error:
        kind = "whole numbers" if whole else "numbers"
        raise UserError(f"--{name} {text}: give {kind} with commas, as in 10,20") from error


def run_in_process_of_its_own(panel: str, lock: int, part: Part | None = None) -> None:
    """Run this same command for one backend: PyTorch and Jittor cannot share a process.

    Args:
        panel: torch or jittor.
        lock: the folder's lock, or the part's, which the child process inherits.
        part: the part of the cells to be computed; None: all.
    """
    from diptych.files import inherited

    words = [word for word in sys.argv[1:] if word not in ("--overwrite", "--json", "--resume")]
    own = [] if part is None else ["--part", f"{part.number}/{part.count}"]
    command = [sys.executable, "-m", "diptych", *words, "--backend", panel, *own, "--for-both"]
    how = inherited(lock, unlaunched())
    code = run_child(command, stdout=subprocess.DEVNULL, **how)
    if code in (2, 130):
        sys.exit(code)  # the child has reported the error
    if code:
        raise MachineError(f"the sweep stopped in the {panel} panel (exit code {code}); see above")
