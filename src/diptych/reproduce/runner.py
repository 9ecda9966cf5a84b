"""Runs a study's stages, notes each in STUDY/stages/ when it is whole, and writes study.json.

A stage whose note is there, with the same words and all its files, is not run again. So a study
that was interrupted at any point goes on with the stage at hand, which itself goes on where it was.
A stage that fails is noted and shown; those that need it wait, the others are done all the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from diptych.data.sources import ENVIRONMENT
from diptych.errors import MachineError, UserError
from diptych.files import hold, read_json, write_json
from diptych.report import study
from diptych.reproduce.stages import Request, Stage, stages

Run = Callable[[list[list[str]], Path], list[int]]
SAME = ("preset", "backends", "seeds", "steps", "epochs", "overrides", "quick", "use", "images",
        "repeats", "sample_steps", "sweep_steps", "sweep_etas", "sweep_images", "data",
        "device")  # fmt: skip
GRACE = 60.0


def reproduce(
    request: Request, out: Path, *, parallel: bool = False, run: Run | None = None
) -> dict[str, Any]:
    """Do what is missing of a study in `out`; gives the content of study.json.

    Args:
        parallel: train the panels of one seed at the same time.
        run: starts commands in a folder, gives their exit codes; another one is for tests.

    Raises:
        UserError: another study or process in the folder, or a linked run that is none.
        MachineError: a stage failed; all that could be done was done.
        KeyboardInterrupt: after the stage at hand has saved its work.
    """
    run = run or processes
    _check(request, out)
    if request.data:
        os.environ[ENVIRONMENT] = request.data  # for all stages, those too that have no --data
    listed = stages(request)
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
    study.write(out)
    if failed:
        raise MachineError(
            f"{out}: failed: {', '.join(failed)}; what they said stands above. The same command "
            f"does what is missing"
        )
    return read_json(out / "study.json")


def _check(request: Request, out: Path) -> None:
    path = out / "study.json"
    if path.is_file():
        before = read_json(path).get("request", {})
        now = _plain(request)
        for key in SAME:
            if before.get(key) != now[key]:
                raise UserError(
                    f"{out}: holds a study with {key}={before.get(key)}, not {now[key]}; go on "
                    f"with its own settings, or choose another --out"
                )
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: is not empty, and holds no study; choose another --out")
    for name, folder in request.use:
        environment = Path(folder) / "environment.json"
        if not environment.is_file():
            raise UserError(f"--use {name}={folder}: not a run folder of `diptych train`")
        backend = read_json(environment).get("backend")
        if backend != name.partition("-")[0]:
            raise UserError(f"--use {name}={folder}: was trained by {backend}")


def _plain(request: Request) -> dict[str, Any]:
    """The request as JSON reads it back: lists in place of tuples."""
    plain = asdict(request)
    return {key: _lists(value) for key, value in plain.items()}


def _lists(value: Any) -> Any:
    return [_lists(each) for each in value] if isinstance(value, (list, tuple)) else value


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
    began = time.monotonic()
    codes = run([command(stage) for stage in group], out)
    seconds = time.monotonic() - began
    failed = []
    for stage, code in zip(group, codes, strict=True):
        missing = [name for name in stage.outputs if not (out / name).exists()]
        if code in stage.fine and not missing:
            notes[stage.name] = _keep(out, stage, "done", seconds, code)
        else:
            what = f"exit code {code}" if code not in stage.fine else f"left no {missing[0]}"
            print(f"diptych: stage {stage.name}: {what}", file=sys.stderr)
            failed.append(stage.name)
    return failed


def command(stage: Stage) -> list[str]:
    """The process of a stage."""
    return [sys.executable, "-m", stage.module, *stage.words]


def _note(out: Path, stage: Stage) -> dict[str, Any]:
    """What is noted of a stage if it is done by the same words; else nothing."""
    path = out / "stages" / f"{stage.name}.json"
    if not path.is_file():
        return {}
    note = read_json(path)
    there = all((out / name).exists() for name in stage.outputs)
    if note.get("state") == "skipped":
        return note if note.get("reason") == stage.skip else {}
    return note if there and note.get("words") == list(stage.words) else {}


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


def _write(
    request: Request, out: Path, listed: Sequence[Stage], notes: dict[str, dict[str, Any]]
) -> None:
    """study.json: the request, where its runs are, and the state of every stage."""
    plain = _plain(request)
    keys = ("preset", "backends", "seeds", "quick", "overrides")
    content = {
        "schema": 1,
        "kind": "study",
        **{key: plain[key] for key in keys},
        "source": request.config().data.source,
        "num_images": request.images,
        "request": plain,
        "runs": {
            f"{b}-seed{s}": request.run(b, s) for s in request.seeds for b in request.backends
        },
        "stages": [notes[s.name] or {"name": s.name, "state": "waiting"} for s in listed],
    }
    write_json(out / "study.json", content)


def processes(commands: list[list[str]], folder: Path) -> list[int]:
    """Run commands side by side in `folder`; an interruption lets them save, then is raised."""
    with _terminated_as_interrupted():
        begun = [subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
                 for words in commands]  # fmt: skip
        try:
            return [process.wait() for process in begun]
        except KeyboardInterrupt:
            for process in begun:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in begun:
                _ended(process)
            raise


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the stage at hand in order too."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: the caller handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
