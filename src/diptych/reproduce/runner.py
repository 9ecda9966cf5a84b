"""Runs a study's stages, notes each in STUDY/stages/ when it is whole, and writes study.json.

A stage whose note is there, with the same words and all its files, is not run again. So a study
that was interrupted at any point goes on with the stage at hand, which itself goes on where it was;
the seconds of all its starts are added up. A stage that fails is noted and shown; those that need
it wait, the others are done all the same.
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

from diptych.data.sources import ENVIRONMENT
from diptych.errors import MachineError, UserError
from diptych.files import hold, read_json, write_json
from diptych.report import study
from diptych.reproduce.checks import check, linked, plain, say_lengths
from diptych.reproduce.processes import processes
from diptych.reproduce.stages import Request, Stage, stages
from diptych.signals import Interrupted

Run = Callable[[list[list[str]], Path], list[int]]


def reproduce(
    request: Request, out: Path, *, parallel: bool = False, run: Run | None = None
) -> dict[str, Any]:
    """Do what is missing of a study in `out`; gives the content of study.json.

    Args:
        parallel: train the panels of one seed at the same time.
        run: starts commands in a folder, gives their exit codes; another one is for tests.

    Raises:
        UserError: another study or process in the folder, or a linked run that cannot serve.
        MachineError: a stage failed; all that could be done was done.
        Interrupted: Ctrl-C or SIGTERM, after the stage at hand has saved its work.
    """
    run = run or processes
    check(request, out)
    if request.data:
        os.environ[ENVIRONMENT] = request.data  # for all stages, those too that have no --data
    listed = stages(request)
    say_lengths(linked(request))
    with hold(out):
        return _go(request, out, listed, parallel, run)


def _go(
    request: Request, out: Path, listed: list[Stage], parallel: bool, run: Run
) -> dict[str, Any]:
    """All stages that are missing, then the page."""
    notes = {stage.name: _note(out, stage) for stage in listed}
    _write(request, out, listed, notes)
    failed: list[str] = []
    for group in _groups(listed, parallel):
        ready = [s for s in group if not notes[s.name] and not _blocked(s, notes)]
        for stage in (s for s in ready if s.skip):
            notes[stage.name] = _keep(out, stage, "skipped", 0.0)
        ready = [stage for stage in ready if not stage.skip]
        if ready:
            failed += _run_group(ready, out, notes, run)
        _write(request, out, listed, notes)
    fault = _page(request, out)
    if failed:
        raise MachineError(
            f"{out}: failed: {', '.join(failed)}; what they said stands above. The same command "
            f"does what is missing"
        )
    if fault:
        raise fault
    return read_json(out / "study.json")


def _page(request: Request, out: Path) -> UserError | None:
    """Write the report of the runs that have begun; gives what kept it from being written."""
    runs = (out / request.run(b, s) for s in request.seeds for b in request.backends)
    if not any((run / "metrics.jsonl").is_file() for run in runs):
        print("diptych: no report yet: no training of the study has begun", file=sys.stderr)
        return None
    try:
        with _interruptible("report"):
            study.write(out)
    except UserError as error:
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


def _blocked(stage: Stage, notes: dict[str, dict[str, Any]]) -> bool:
    """Whether a stage that it needs is not done; one that is not listed is trusted to be."""
    return any(not notes[name] for name in stage.needs if name in notes)


def _run_group(
    group: list[Stage], out: Path, notes: dict[str, dict[str, Any]], run: Run
) -> list[str]:
    """Run stages side by side; gives the names of those that failed."""
    names = ", ".join(stage.name for stage in group)
    print(f"\n== {names}", file=sys.stderr, flush=True)
    for stage in group:
        for output in stage.outputs:
            (out / output).parent.mkdir(parents=True, exist_ok=True)
    earlier = {stage.name: _earlier(out, stage) for stage in group}
    began = time.monotonic()
    try:
        with _interruptible(names):
            codes = run([command(stage) for stage in group], out)
    except Interrupted:
        for stage in group:
            _keep(out, stage, "interrupted", earlier[stage.name] + time.monotonic() - began)
        raise
    failed = []
    for stage, code in zip(group, codes, strict=True):
        seconds = earlier[stage.name] + time.monotonic() - began
        missing = [name for name in stage.outputs if not (out / name).exists()]
        if code in stage.fine and not missing:
            notes[stage.name] = _keep(out, stage, "done", seconds, code)
        else:
            what = f"exit code {code}" if code not in stage.fine else f"left no {missing[0]}"
            print(f"diptych: stage {stage.name}: {what}", file=sys.stderr)
            _keep(out, stage, "failed", seconds, code)
            failed.append(stage.name)
    return failed


def command(stage: Stage) -> list[str]:
    """The process of a stage."""
    return [sys.executable, "-m", stage.module, *stage.words]


def _noted(out: Path, stage: Stage) -> dict[str, Any]:
    """What is noted of a stage, done or not; nothing where it was started by other words."""
    path = out / "stages" / f"{stage.name}.json"
    note = read_json(path) if path.is_file() else {}
    return note if note.get("words") == list(stage.words) else {}


def _note(out: Path, stage: Stage) -> dict[str, Any]:
    """What is noted of a stage if it is done by the same words, or skipped; else nothing."""
    note = _noted(out, stage)
    if note.get("state") == "skipped":
        return note if note.get("reason") == stage.skip else {}
    there = all((out / name).exists() for name in stage.outputs)
    return note if there and note.get("state") == "done" else {}


def _earlier(out: Path, stage: Stage) -> float:
    """Seconds that the stage's starts before this one took, if this one goes on from them."""
    note = _noted(out, stage)
    begun = note.get("state") in ("interrupted", "failed")
    goes_on = begun or any((out / name).exists() for name in stage.outputs)
    return float(note.get("seconds", 0.0)) if goes_on else 0.0


def _keep(out: Path, stage: Stage, state: str, seconds: float, code: int = 0) -> dict[str, Any]:
    note = {
        "name": stage.name,
        "state": state,
        "seconds": seconds,
        "time": time.time(),
        "words": list(stage.words),
        "command": " ".join([stage.module, *stage.words]),
        "outputs": list(stage.outputs),
        "exit_code": code,
        "reason": stage.skip,
    }
    write_json(out / "stages" / f"{stage.name}.json", note)
    return note


def _undone(out: Path, stage: Stage) -> dict[str, Any]:
    """A stage that failed with its seconds and code, or one that waits, as study.json has it."""
    note = _noted(out, stage)
    return note if note.get("state") == "failed" else {"name": stage.name, "state": "waiting"}


def _write(
    request: Request, out: Path, listed: Sequence[Stage], notes: dict[str, dict[str, Any]]
) -> None:
    """study.json: the request, where its runs are, and the state of every stage."""
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
        "stages": [notes[s.name] or _undone(out, s) for s in listed],
    }
    write_json(out / "study.json", content)
