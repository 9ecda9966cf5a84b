"""Stage notes, STUDY/stages/NAME.json, and a check that they still hold.

A stage is done if its note says so for the same command, all its output files are there, and its
inputs have not changed since. Weights that were trained further or replaced, in the study's own
folder or in a linked run, make it undone.
"""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from diptych.files import sha256_of, write_json
from diptych.runs import checkpoint
from diptych.runs.records import StageNote
from diptych.study.reproduce.stages import Stage

UNFINISHED = ("begun", "interrupted", "failed")


def noted(out: Path, stage: Stage) -> dict[str, Any]:
    """The note of a stage, done or not; {} if it was started by another command."""
    path = out / "stages" / f"{stage.name}.json"
    note = StageNote.content(path) if path.is_file() else {}
    return note if note.get("words") == list(stage.words) else {}


def done(out: Path, stage: Stage) -> dict[str, Any]:
    """The note of a stage that is done (see the module) or skipped; else {}."""
    note = noted(out, stage)
    if note.get("state") == "skipped":
        return note if note.get("reason") == stage.reason else {}
    there = all((out / name).exists() for name in stage.outputs)
    return note if there and note.get("state") == "done" and not stale(out, stage) else {}


def stale(out: Path, stage: Stage) -> bool:
    """True if an earlier start of the stage left files made from other inputs."""
    note = noted(out, stage)
    if not note:
        return False
    files = _sources(out, stage)
    made_of = note.get("made_of")
    if made_of is None:  # a note of an earlier version: compare file times
        return any(path.stat().st_mtime > note["time"] for path in files.values())
    if not made_of:
        return bool(files)
    # An input that the note lacks was not recorded by the version that wrote it.
    return any(made_of[name] != _digest(path) for name, path in files.items() if name in made_of)


def made_of(out: Path, stage: Stage) -> dict[str, str]:
    """SHA-256 of each existing input of a stage."""
    return {name: _digest(path) for name, path in _sources(out, stage).items()}


def _digest(path: Path) -> str:
    found = path.stat()
    return _digest_of(path, found.st_size, found.st_mtime_ns, found.st_ino)


@lru_cache
def _digest_of(path: Path, *state: int) -> str:
    """The sha256 of a file in this state: Inception's 95 MB are not read again for every stage."""
    return sha256_of(path)


def _sources(out: Path, stage: Stage) -> dict[str, Path]:
    """Files that identify a stage's inputs: for a run, the manifest of its newest weights."""
    found = {}
    for name in stage.reads:
        path = out / name
        if path.is_dir():
            path = [path, *checkpoint.all_checkpoints(path)][-1] / "manifest.json"
        if path.is_file():
            found[name] = path
    return found


def earlier_seconds(out: Path, stage: Stage) -> float:
    """Seconds of the stage's earlier starts, if this start resumes them."""
    note = noted(out, stage)
    begun = note.get("state") in UNFINISHED
    goes_on = begun or any((out / name).exists() for name in stage.outputs)
    return float(note.get("seconds", 0.0)) if goes_on and not stale(out, stage) else 0.0


def keep(
    out: Path, stage: Stage, state: str, seconds: float, of: dict[str, str], code: int = 0
) -> None:
    """Write a stage's note; `of` is the result of `made_of` before the start."""
    note = {
        "name": stage.name,
        "state": state,
        "seconds": seconds,
        "time": time.time(),
        "words": list(stage.words),
        "command": " ".join([stage.module, *stage.words]),
        "outputs": list(stage.outputs),
        "made_of": of,
        "exit_code": code,
        "reason": stage.reason,
        "why": stage.skip,
        "linked": stage.linked,
    }
    write_json(out / "stages" / f"{stage.name}.json", StageNote.checked(note))


def shown(out: Path, stage: Stage) -> dict[str, Any]:
    """A stage's entry in study.json: its note if done, skipped or failed, else waiting."""
    if found := done(out, stage):
        return found
    note = noted(out, stage)
    return note if note.get("state") == "failed" else {"name": stage.name, "state": "waiting"}
