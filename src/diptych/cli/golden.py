"""`diptych golden record` and `diptych golden check`."""

from __future__ import annotations

from pathlib import Path

import click

from diptych.cli.common import (
    FOLDER,
    JSON,
    OVERWRITE,
    QUIET,
    Verbs,
    fail,
    say,
    show,
    split,
)


@click.group(
    cls=Verbs, short_help="Keep a training's first losses, and check them after every change."
)
def golden() -> None:
    """Keep a training's first losses on record, and check them after every change.

    \b
    Examples:
      diptych golden record tiny --out golden.json
      diptych golden check golden.json --backend jittor
    """


@golden.command()
@click.argument("source")
@click.option("--out", type=FOLDER, required=True, help="The record, such as golden.json.")
@click.option("--steps", type=int, default=20, show_default=True, help="Steps to record.")
@click.option("--backend", help="torch or jittor.  [default: the run's, else torch]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
@click.option("--device", help="cpu, cuda or cuda:INDEX.  [default: cpu]")
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True,
    help="CPU threads; they decide the last bits, so a check takes as many.",
)  # fmt: skip
@click.option("--resume-at", type=int, help="Resume after this step; 0: never.  [default: halfway]")
@click.option("--rtol", type=float, help="The losses' tolerance elsewhere.  [default: measured]")
@OVERWRITE
@QUIET
@JSON
def record(
    source: str,
    out: Path,
    steps: int,
    backend: str | None,
    overrides: tuple[str, ...],
    data: Path | None,
    device: str | None,
    threads: int,
    resume_at: int | None,
    rtol: float | None,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Record the first steps of SOURCE: a preset, a YAML file, a run folder or FILE.py:function.

    A function takes no argument and yields one loss per step, or a dict with `loss` and other
    numbers and arrays. The training runs twice to see whether its bits repeat, and (not a
    function) twice more from weights moved by one rounding, to measure the tolerance elsewhere.

    \b
    Examples:
      diptych golden record tiny --out golden.json
      diptych golden record runs/jittor --steps 40 --out tests/jittor.json
      diptych golden record train.py:steps --out golden.json
    """
    from diptych.files import check_file
    from diptych.golden import trainings
    from diptych.golden.record import write_golden

    check_file(out, overwrite)
    asked = trainings.Asked(
        source, steps, backend, overrides, threads, device, resume_at, rtol, data
    )
    found = trainings.record(asked, trainings.quiet if quiet else say)
    write_golden(out, found, overwrite)
    lines = [f"{steps} steps recorded in {out}: loss {found.numbers['loss'][0]:.6g} to "
             f"{found.numbers['loss'][-1]:.6g}"]  # fmt: skip
    if not found.repeats:
        lines.append("the training did not repeat its own bits: checks take the tolerance")
    own = ""
    if found.subject.kind == "training" and (Path(source) / "metrics.jsonl").is_file():
        own = trainings.own_losses(found, Path(source))
        lines.append(own)
    losses = found.tolerance.numbers["loss"]
    lines.append(
        f"tolerance elsewhere: {losses[0]:.2g} at step 1, {losses[-1]:.2g} at step {steps}"
        f" ({found.tolerance.source})"
    )
    facts = {"out": str(out), "steps": steps, "repeats": found.repeats, "losses":
             found.numbers["loss"], "tolerance": losses, "own_losses": own or None}  # fmt: skip
    show(facts, as_json, "\n".join(lines))


@golden.command()
@click.argument("record", type=FOLDER)
@click.option("--backend", help="Check this backend instead of the recorded one.")
@click.option("--data", type=FOLDER, help="Folder that holds the data, searched alone.")
@click.option("--mutate", help="Also plant these faults (or all), and show that they are caught.")
@QUIET
@JSON
def check(
    record: Path,
    backend: str | None,
    data: Path | None,
    mutate: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the steps of RECORD again and compare: bits at its place, else within its tolerance.

    Exit code 0: nothing differs. 3: something does; the first line names the step and the size.

    \b
    Examples:
      diptych golden check golden.json
      diptych golden check golden.json --backend jittor
      diptych golden check golden.json --mutate learning_rate,stale_batch
    """
    from diptych.golden import trainings
    from diptych.golden.record import read_golden

    found = read_golden(record)
    names = trainings.choose(split(mutate))
    progress = trainings.quiet if quiet else say
    verdict, faults = trainings.check(
        found, backend=backend, data_dir=data, mutations=names, say=progress
    )
    lines = [verdict.text()]
    missed = [name for name, each in faults.items() if each.passed]
    for name, each in faults.items():
        told = "NOT CAUGHT" if each.passed else each.text().splitlines()[0].removeprefix("FAIL: ")
        lines.append(f"{name}: {told}")
    if faults:
        lines.append(f"{len(faults) - len(missed)} of {len(faults)} planted faults are caught")
    content = verdict.content() | {"faults": {n: v.content() for n, v in faults.items()}}
    show(content, as_json, "\n".join(lines))
    if not verdict.passed or missed:
        fail(f"{record}: " + ("a fault is not caught" if verdict.passed else "differs"), 3)
