"""Runs a study's stages, writes a note in STUDY/stages/ when one is complete, and study.json.

A stage that is done (see `diptych.study.reproduce.notes`) is not run again. So a study that was
interrupted at any point resumes with the current stage, which itself resumes; the seconds of all
its starts are added up, except those of a start that was killed. A failed stage is noted and
shown; stages that need it wait, the others run anyway.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diptych.data.sources.registry import ENVIRONMENT
from diptych.errors import Interrupted, MachineError, UserError
from diptych.files import hold, read_json, write_json
from diptych.report.build import report_study
from diptych.runs.records import StudyNotes
from diptych.study.reproduce.checks import check, linked, plain, say_lengths
from diptych.study.reproduce.notes import done, earlier_seconds, keep, made_of, noted, shown, stale
from diptych.study.reproduce.processes import processes
from diptych.study.reproduce.request import StudyRequest
from diptych.study.reproduce.stages import Stage, stages

log = logging.getLogger(__name__)

Run = Callable[[list[list[str]], Path], list[tuple[int, float]]]


def reproduce(
    request: StudyRequest, out: Path, *, parallel: bool = False, run: Run | None = None
) -> dict[str, Any]:
    """Run the missing stages of a study in `out`; return the content of study.json.

    Args:
        parallel: train the backends of one seed at the same time.
        run: runs commands in a folder and returns the exit code and seconds of each; replaced
            in tests.

    Raises:
        UserError: another study or process in the folder, or an unusable linked run.
        MachineError: a stage failed; all stages that do not need it have run.
        Interrupted: Ctrl-C or SIGTERM, after the current stage has saved its work.
    """
    every = checked_stages(request, out)
    with hold(out):
        return _go(request, out, every, parallel, run or processes)


def checked_stages(request: StudyRequest, out: Path) -> list[Stage]:
    """All stages of a study that may begin or go on in `out`; see `reproduce` for the errors."""
    check(request, out)
    if request.data:
        os.environ[ENVIRONMENT] = request.data  # for all stages, even those without --data
    every = stages(request)
    _check_needs(request, out, every)
    say_lengths(linked(request))
    return every


def _go(
    request: StudyRequest, out: Path, every: list[Stage], parallel: bool, run: Run
) -> dict[str, Any]:
    """Run the requested stages that are missing, then write the page; return study.json."""
    listed = [stage for stage in every if request.wants(stage.name)]
    failed: list[str] = []
    for group in _groups(listed, parallel):
        write_study(request, out, every)
        missing = [stage for stage in group if not done(out, stage)]
        for stage in (s for s in missing if s.skip):
            keep(out, stage, "skipped", 0.0, {})
        ready = [s for s in missing if not s.skip and not waits_for(out, every, s)]
        if ready:
            failed += run_group(ready, out, run)
    return finish(request, out, every, failed)


def finish(
    request: StudyRequest, out: Path, every: list[Stage], failed: list[str]
) -> dict[str, Any]:
    """Write study.json and the page, and return the former; the caller holds the folder.

    Raises:
        MachineError: stages have failed.
        UserError, MachineError: the page could not be written.
    """
    write_study(request, out, every)
    fault = _page(request, out)
    if failed:
        raise MachineError(
            f"{out}: failed: {', '.join(failed)}; see their output above. The same command runs "
            f"the missing stages"
        )
    if fault:
        raise fault
    return read_json(out / "study.json")


def waits_for(out: Path, every: Sequence[Stage], stage: Stage) -> list[str]:
    """The stages that `stage` needs and that are not done; a linked training counts as done."""
    needed = [each for each in every if each.name in stage.needs]
    return [each.name for each in needed if not each.skip and not done(out, each)]


def _check_needs(request: StudyRequest, out: Path, every: Sequence[Stage]) -> None:
    """Refuse an `--only` that leaves out stages whose output is needed and missing."""
    for stage in (each for each in every if request.wants(each.name) and not each.skip):
        lacks = [name for name in waits_for(out, every, stage) if not request.wants(name)]
        if lacks:
            raise UserError(
                f"--only: {stage.name} needs {lacks[0]}, which is not done; "
                f"add {lacks[0].partition('-')[0]} to --only, or leave it out"
            )


def _page(request: StudyRequest, out: Path) -> UserError | MachineError | None:
    """Write the report of the runs that have begun; return the error that prevented it, if any."""
    runs = (out / request.run(b, s) for s in request.seeds for b in request.backends)
    if not any((run / "metrics.jsonl").is_file() for run in runs):
        log.warning("no report yet: no training of the study has begun")
        return None
    try:
        with _interruptible("report"):
            report_study(out)
    except (UserError, MachineError) as error:
        log.warning("the report could not be written")
        return error
    return None


@contextmanager
def _interruptible(names: str) -> Iterator[None]:
    """Name the stages in the error if the block is interrupted."""
    try:
        yield
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        raise Interrupted(f"interrupted in {names}; the same command goes on", number) from stop


def _groups(listed: Sequence[Stage], parallel: bool) -> Iterator[list[Stage]]:
    """Stages one by one; with `parallel`, the stages of one group together."""
    waiting: list[Stage] = []
    for stage in listed:
        if waiting and not (parallel and stage.group and stage.group == waiting[0].group):
            yield waiting
            waiting = []
        waiting.append(stage)
    if waiting:
        yield waiting


def run_group(group: list[Stage], out: Path, run: Run) -> list[str]:
    """Run stages side by side; return the names of the failed ones."""
    names = ", ".join(stage.name for stage in group)
    log.info("\n== %s", names)
    for stage in group:
        for output in stage.outputs:
            (out / output).parent.mkdir(parents=True, exist_ok=True)
    earlier = {stage.name: earlier_seconds(out, stage) for stage in group}
    sources = {stage.name: made_of(out, stage) for stage in group}
    # Until a stage is done, its files may still be made from the earlier inputs.
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
            log.warning("stage %s: %s", stage.name, what)
            keep(out, stage, "failed", seconds, begun[stage.name], code)
            failed.append(stage.name)
    return failed


def command(stage: Stage, anew: bool = False) -> list[str]:
    """The command line of a stage, which resumes from existing files or (`anew`) replaces them."""
    words = stage.words
    if anew and words[-1] == "--resume":
        words = (*words[:-1], "--overwrite")
    return [sys.executable, "-m", stage.module, *words]


def write_study(request: StudyRequest, out: Path, every: Sequence[Stage]) -> None:
    """Write study.json: the request, the run folders, and the state of every stage.

    A stage that was never requested, by this call or an earlier one, is left out.
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
