"""Trainings on record: a preset's, a run's, or a user's function, each in a process of its own.

Bits depend on the number of threads, so the record fixes it. A training of Diptych stops halfway
and is resumed, so that a state that is not restored is seen.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.config.load import Config, load_config
from diptych.errors import MachineError, UserError, nearest
from diptych.files import read_json
from diptych.golden.compare import Verdict, compare
from diptych.golden.record import (
    DEFAULT_RTOL,
    LOSS,
    FunctionSubject,
    Golden,
    Tolerance,
    Trace,
    TrainingSubject,
    make_golden,
    measured,
    stated,
)
from diptych.runs import checkpoint
from diptych.runs.folder import backend_of
from diptych.runs.reader import read_run
from diptych.weights.formats import read_config

STEPS, THREADS, NUDGES = 20, 2, 2
Say = Callable[[str], None]
Subject = TrainingSubject | FunctionSubject


def quiet(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True)
class Asked:
    """A recording to make.

    Attributes:
        source: a preset, a YAML file of settings, a run folder, or `FILE.py:function`.
        backend: None: the run's own, else "torch".
        device: None: "cpu".
        resume_at: the step after which the training is resumed; None: halfway; 0: never.
        rtol: the losses' tolerance elsewhere; None: measured, or for a function DEFAULT_RTOL.
    """

    source: str
    steps: int = STEPS
    backend: str | None = None
    overrides: tuple[str, ...] = ()
    threads: int = THREADS
    device: str | None = None
    resume_at: int | None = None
    rtol: float | None = None
    data_dir: Path | None = None


def is_function(source: str) -> bool:
    """True if a source names a function: `FILE.py:name` or `module:name`."""
    where, _, name = source.rpartition(":")
    return bool(where) and name.isidentifier() and not Path(source).exists()


def record(asked: Asked, say: Say = quiet) -> Golden:
    """Run a training, a second time for its bits, and nudged for its tolerance; return its record.

    Raises:
        UserError: an unknown source, data that is not there, or a training that stops.
    """
    if asked.steps < 1:
        raise UserError(f"--steps {asked.steps}: expected 1 or more")
    if asked.rtol is not None and not 0 < asked.rtol < 1:
        raise UserError(f"--rtol {asked.rtol}: expected a number above 0 and below 1")
    subject = _subject(asked)
    function = isinstance(subject, FunctionSubject)
    jobs: list[dict[str, Any]] = [{"nudge": 0}, {"nudge": 0}]
    jobs += [] if function else [{"nudge": k + 1} for k in range(NUDGES)]
    traces = run_jobs(subject, asked.steps, jobs, asked.data_dir, say)
    plain, again, *nudged = traces
    steps = len(plain.numbers.get(LOSS, ()))
    if not plain.raised and steps != asked.steps:
        raise UserError(f"{asked.source}: ends after {steps} steps; ask for fewer --steps")
    repeats = plain.numbers == again.numbers and plain.arrays == again.arrays
    given = f"stated with --rtol {asked.rtol:g}" if asked.rtol else ""
    if isinstance(subject, FunctionSubject):
        source = given or f"{DEFAULT_RTOL:g} by default: no spread was measured for a function"
        tolerance = stated(plain, asked.rtol or DEFAULT_RTOL, source)
    else:
        subject = subject.model_copy(update={"data": plain.data})
        tolerance = measured(plain, nudged)
        if asked.rtol:
            losses = {**tolerance.numbers, LOSS: [asked.rtol] * asked.steps}
            source = f"losses: {given}; all else: {tolerance.source}"
            tolerance = Tolerance(numbers=losses, arrays=tolerance.arrays, source=source)
    return make_golden(plain, subject, repeats, tolerance)


def check(
    golden: Golden,
    *,
    backend: str | None = None,
    data_dir: Path | None = None,
    mutations: Sequence[str] = (),
    say: Say = quiet,
) -> tuple[Verdict, dict[str, Verdict]]:
    """Run a recorded training again and compare.

    Args:
        backend: another panel than the recorded one; its bits are others.
        mutations: faults of the ladder's list, each planted into a further training.

    Returns:
        The verdict, and that of each planted fault, which should fail.

    Raises:
        UserError: the training cannot be run, or its data is not the recorded one.
    """
    subject: Subject = golden.subject
    if isinstance(subject, FunctionSubject):
        if subject.threads is None or not is_function(subject.function):
            raise UserError(
                f"the record is of the function '{subject.function}' in a test, which cannot be "
                "found from here; check it with its own test"
            )
        _refuse_for_function(
            {"--backend": backend, "--mutate": mutations, "--data": data_dir is not None}
        )
    elif backend:
        subject = subject.model_copy(update={"backend": backend})
    jobs: list[dict[str, Any]] = [{"nudge": 0}]
    jobs += [{"nudge": 0, "mutation": name} for name in mutations]
    plain, *faulty = run_jobs(subject, golden.steps, jobs, data_dir, say)
    wanted = "" if isinstance(subject, FunctionSubject) else subject.data
    if plain.data != wanted:
        raise UserError(
            f"the record has other data (sha256 {wanted[:12]}, here {plain.data[:12]}); give the "
            "recorded data with --data, or record anew"
        )
    found = {name: compare(golden, each) for name, each in zip(mutations, faulty, strict=True)}
    return compare(golden, plain), found


def own_losses(golden: Golden, run: Path) -> str:
    """Compare a run's recorded losses with those of its retrained first steps, in words."""
    there = read_run(run, strict=False)
    recorded = dict(zip(there.step.tolist(), there.loss.tolist(), strict=True))
    known = [(k, v, recorded[k]) for k, v in enumerate(golden.numbers[LOSS], 1) if k in recorded]
    if not known:
        return f"{run} has none of these steps on record"
    other = [(k, a, b) for k, a, b in known if a != b]
    if not other:
        return f"the {len(known)} losses that {run} has on record are the same to the last bit"
    k, a, b = other[0]
    return (
        f"{len(other)} of {len(known)} losses that {run} has on record differ, first at step {k} "
        f"({b!r}, now {a!r}): it was trained at another place or by another version"
    )


def _refuse_for_function(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise UserError(
            f"{' and '.join(given)} {verb} for trainings of Diptych, not for a function, which "
            "chooses these itself; leave it out"
        )


def _subject(asked: Asked) -> Subject:
    if is_function(asked.source):
        _refuse_for_function(
            {
                "--backend": asked.backend,
                "--set": asked.overrides,
                "--data": asked.data_dir is not None,
                "--device": asked.device,
                "--resume-at": asked.resume_at is not None,
            }
        )
        return FunctionSubject(kind="function", function=asked.source, threads=asked.threads)
    config, backend = _training(asked)
    half = asked.steps // 2 if asked.resume_at is None else asked.resume_at
    if not 0 <= half < asked.steps:
        raise UserError(f"--resume-at {half}: expected a step before the last, {asked.steps}")
    if config.train.steps is not None and config.train.steps < asked.steps:
        raise UserError(f"{asked.source}: ends at step {config.train.steps}; ask for fewer --steps")
    # Rows are read at every step, so that the training can stop at any.
    train = config.train.model_copy(update={"log_every": 1, "grid_every": 0})
    settings = config.model_copy(update={"train": train}).model_dump(mode="json")
    return TrainingSubject(
        kind="training",
        config=settings,
        backend=backend,
        device=asked.device or "cpu",
        resume_at=half,
        threads=asked.threads,
    )


def _training(asked: Asked) -> tuple[Config, str]:
    """The config and the backend of a preset, a YAML file or a run."""
    run = Path(asked.source)
    if not (run / "config.yaml").is_file():
        if run.is_dir():
            raise UserError(f"{run}: not a run folder: config.yaml missing")
        return read_config(asked.source, list(asked.overrides)), asked.backend or "torch"
    saved = checkpoint.all_checkpoints(run)
    if saved and read_json(saved[-1] / "manifest.json").get("network") == checkpoint.OWN_NETWORK:
        raise UserError(
            f"{run}: has a network of your own, which the folder does not hold; record a "
            "function that trains it: diptych golden record FILE.py:function"
        )
    config = load_config(str(run / "config.yaml"), list(asked.overrides))
    return config, asked.backend or backend_of(run)


def run_jobs(
    subject: Subject,
    steps: int,
    jobs: Sequence[dict[str, Any]],
    data_dir: Path | None,
    say: Say,
) -> list[Trace]:
    """The traces of jobs, run one after the other in one new process.

    Raises:
        UserError: the training was refused, or a function raised.
        MachineError: the machine failed, or the process ended without a word.
        RuntimeError: Diptych's own training raised; its traceback is the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        asked = [{**job, "out": str(home / f"{k}.json")} for k, job in enumerate(jobs)]
        told = {**subject.model_dump(), "data_dir": str(data_dir) if data_dir else None}
        spec = {"subject": told, "steps": steps, "jobs": asked}
        (home / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        environment = {**os.environ, "OMP_NUM_THREADS": str(subject.threads)}
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "diptych.golden.worker", str(home / "spec.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )
        try:
            said = _follow(process, asked, say)
        finally:
            process.kill()
            process.wait()
        if process.returncode not in (0, None) and not all(Path(j["out"]).exists() for j in asked):
            _fail(said, process.returncode, (home / "log").read_text(errors="replace"))
        return [Trace(**json.loads(Path(job["out"]).read_text("utf-8"))) for job in asked]


def _follow(
    process: subprocess.Popen[str], jobs: Sequence[dict[str, Any]], say: Say
) -> dict[str, str]:
    """Report finished jobs until the process ends; return its error and its kind, or nothing."""
    assert process.stdout is not None and process.stdin is not None
    error: dict[str, str] = {}
    done = 0
    with process.stdin, process.stdout:  # the worker ends with us
        for line in process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue  # something that a framework or the function printed
            if isinstance(said, dict) and "done" in said:
                job = jobs[done]
                done += 1
                what = job.get("mutation") or ("weights moved" if job["nudge"] else "plain")
                say(f"training {done} of {len(jobs)}: {what}")
            elif isinstance(said, dict) and {"error", "kind"} <= said.keys():
                error = said
        process.wait()
    return error


def _fail(said: dict[str, str], code: int, log: str) -> None:
    """Raise the error of a worker's process as the kind of error that it was there."""
    kind = said.get("kind")
    if kind == "bug":
        raise RuntimeError(f"the training stopped: {said['error']}\n{log}")
    if kind:
        error = MachineError if kind == "MachineError" else UserError
        raise error(f"the training stopped: {said['error']}")
    last = log.strip().splitlines()[-1:] or ["it said nothing"]
    raise MachineError(f"the training's process ended with code {code} ({last[0][:300]})")


def choose(names: Sequence[str]) -> list[str]:
    """The named faults that a training can show; `all` selects every one of them.

    Raises:
        UserError: an unknown name, or a fault of sampling or scoring, which no training runs.
    """
    from diptych.align.faults.mutations import MUTATIONS

    ours = {name for name, each in MUTATIONS.items() if each.rung not in NOT_TRAINED}
    for name in names:
        if name in MUTATIONS and name not in ours and name != "all":
            rung = MUTATIONS[name].rung
            raise UserError(f"--mutate {name}: is a fault of the {rung}, which no training runs")
        if name != "all" and name not in ours:
            raise UserError(f"--mutate {name}: is not known{nearest(name, [*ours, 'all'])}")
    return [name for name in MUTATIONS if name in ours and ("all" in names or name in names)]


NOT_TRAINED = ("solver", "metric")
