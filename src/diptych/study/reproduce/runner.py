"""Runs a study's stages, notes each in STUDY/stages/ when it is whole, and writes study.json.

A stage that is done (see `diptych.study.reproduce.notes`) is not run again. So a study that was
interrupted at any point goes on with the stage at hand, which itself goes on where it was; the
seconds of all its starts are added up, but for one that was killed outright. A stage that fails is
noted and shown; those that need it wait, the others are done all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.data.sources.registry import ENVIRONMENT
from diptych.errors import MachineError, UserError
from diptych.files import hold, read_json, write_json
from diptych.report.build import report_study
from diptych.runs.records import StudyNotes
from diptych.study.reproduce.checks import check, linked, plain, say_lengths
from diptych.study.reproduce.notes import done, earlier_seconds, keep, made_of, noted, shown, stale
from diptych.study.reproduce.processes import processes
from diptych.study.reproduce.request import Request
from diptych.study.reproduce.stages import Stage, stages
from diptych.training.signals import Interrupted

Run = Callable[[list[list[str]], Path], list[tuple[int, float]]]


def reproduce(
    request: Request, out: Path, *, parallel: bool = False, run: Run | None = None
) -> dict[str, Any]:
    """Do what is missing of a study in `out`; gives the content of study.json.

    Args:
        parallel: train the panels of one seed at the same time.
        run: starts commands in a folder, gives exit code and seconds of each; another one is for
            tests.

    Raises:
        UserError: another study or process in the folder, or a linked run that cannot serve.
        MachineError: a stage failed; all that could be done was done.
        Interrupted: Ctrl-C or SIGTERM, after the stage at hand has saved its work.
    """
    run = run or processes
    check(request, out)
    if request.data:
        os.environ[ENVIRONMENT] = request.data  # for all stages, those too that have no --data
    every = stages(request)
    _check_needs(request, out, every)
    say_lengths(linked(request))
    with hold(out):
        return _go(request, out, every, parallel, run)


def _go(
    request: Request, out: Path, every: list[Stage], parallel: bool, run: Run
) -> dict[str, Any]:
    """All wanted stages that are missing, then the page; gives the content of study.json."""
    listed = [stage for stage in every if request.wants(stage.name)]
    failed: list[str] = []
    for group in _groups(listed, parallel):
        _write(request, out, every)
        missing = [stage for stage in group if not done(out, stage)]
        for stage in (s for s in missing if s.skip):
            keep(out, stage, "skipped", 0.0, {})
        ready = [s for s in missing if not s.skip and not _waits_for(out, every, s)]
        if ready:
            failed += _run_group(ready, out, run)
    _write(request, out, every)
    fault = _page(request, out)
    if failed:
        raise MachineError(
            f"{out}: failed: {', '.join(failed)}; what they said stands above. The same command "
            f"does what is missing"
        )
    if fault:
        raise fault
    return read_json(out / "study.json")


def _waits_for(out: Path, every: Sequence[Stage], stage: Stage) -> list[str]:
    """The stages that it needs and that are not done; a linked training is."""
    needed = [each for each in every if each.name in stage.needs]
    return [each.name for each in needed if not each.skip and not done(out, each)]


def _check_needs(request: Request, out: Path, every: Sequence[Stage]) -> None:
    """Refuse what `--only` leaves without what it is made of."""
    for stage in (each for each in every if request.wants(each.name) and not each.skip):
        lacks = [name for name in _waits_for(out, every, stage) if not request.wants(name)]
        if lacks:
            raise UserError(
                f"--only: {stage.name} needs {lacks[0]}, which is not done; "
                f"add {lacks[0].partition('-')[0]} to --only, or leave it out"
            )


def _page(request: Request, out: Path) -> UserError | MachineError | None:
    """Write the report of the runs that have begun; gives what kept it from being written."""
    runs = (out / request.run(b, s) for s in request.seeds for b in request.backends)
    if not any((run / "metrics.jsonl").is_file() for run in runs):
        print("diptych: no report yet: no training of the study has begun", file=sys.stderr)
        return None
    try:
        with _interruptible("report"):
            report_study(out)
    except (UserError, MachineError) as error:
        print("diptych: the report could not be written", file=sys.stderr)
        return error
    return None


@contextmanager
def _interruptible(names: str) -> Iterator[None]:
    """Says which stage was interrupted."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        raise Interrupted(f"interrupted in {names}; the same command goes on", number) from stop


def _groups(listed: Sequence[Stage], parallel: bool) -> Iterator[list[Stage]]:
    """Stages one by one; with `parallel`, those of one group together."""
    waiting: list[Stage] = []
    for stage in listed:
        if waiting and not (parallel and stage.group and stage.group == waiting[0].group):
            yield waiting
            waiting = []
        waiting.append(stage)
    if waiting:
        yield waiting


def _run_group(group: list[Stage], out: Path, run: Run) -> list[str]:
    """Run stages side by side; gives the names of those that failed."""
    names = ", ".join(stage.name for stage in group)
    print(f"\n== {names}", file=sys.stderr, flush=True)
    for stage in group:
        for output in stage.outputs:
            (out / output).parent.mkdir(parents=True, exist_ok=True)
    earlier = {stage.name: earlier_seconds(out, stage) for stage in group}
    sources = {stage.name: made_of(out, stage) for stage in group}
    # Until a stage is done, what it has left may still be made of what was there before.
    begun = {stage.name: {} if stale(out, stage) else sources[stage.name] for stage in group}
    commands = [command(stage, anew=stale(out, stage)) for stage in group]
    for stage in group:
        keep(out, stage, "begun", earlier[stage.name], begun[stage.name])
    began = time.monotonic()
    try:
        with _interruptible(names):
            ended = run(commands, out)
    except Interrupted:
        for stage in group:
            seconds = earlier[stage.name] + time.monotonic() - began
            keep(out, stage, "interrupted", seconds, begun[stage.name])
        raise
    failed = []
    for stage, (code, took) in zip(group, ended, strict=True):
        seconds = earlier[stage.name] + took
        missing = [name for name in stage.outputs if not (out / name).exists()]
        if code in stage.fine and not missing:
            keep(out, stage, "done", seconds, sources[stage.name], code)
        else:
            what = f"exit code {code}" if code not in stage.fine else f"left no {missing[0]}"
            print(f"diptych: stage {stage.name}: {what}", file=sys.stderr)
            keep(out, stage, "failed", seconds, begun[stage.name], code)
            failed.append(stage.name)
    return failed


def command(stage: Stage, anew: bool = False) -> list[str]:
    """The process of a stage, which goes on with what is there, or (`anew`) replaces it."""
    words = stage.words
    if anew and words[-1] == "--resume":
        words = (*words[:-1], "--overwrite")
    return [sys.executable, "-m", stage.module, *words]


def _write(request: Request, out: Path, every: Sequence[Stage]) -> None:
    """study.json: the request, where its runs are, and the state of every stage.

    A stage that was never asked for, by this call or an earlier one, is not in it.
    """
    asked = plain(request)
    keys = ("preset", "backends", "seeds", "quick", "overrides")
    content = {
        "schema": 1,
        "kind": "study",
        **{key: asked[key] for key in keys},
        "source": request.config().data.source,
        "num_images": request.images,
        "request": asked,
        "runs": {
            f"{b}-seed{s}": request.run(b, s) for s in request.seeds for b in request.backends
        },
        "linked": linked(request),
        "stages": [shown(out, s) for s in every if request.wants(s.name) or noted(out, s)],
    }
    write_json(out / "study.json", StudyNotes.checked(content))
