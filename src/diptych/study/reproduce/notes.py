"""What STUDY/stages/NAME.json says of a stage, and whether that still holds.

A stage is done if its note says so, of the same words; if all its files are there; and if what it
was made of is what is there now: weights that were trained on or replaced since then, in the
study's own folder or in a linked run, make it undone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from diptych.files import read_json, sha256_of, write_json
from diptych.runs import checkpoint
from diptych.study.reproduce.stages import Stage

UNFINISHED = ("begun", "interrupted", "failed")


def noted(out: Path, stage: Stage) -> dict[str, Any]:
    """What is noted of a stage, done or not; nothing where it was started by other words."""
    path = out / "stages" / f"{stage.name}.json"
    note = read_json(path) if path.is_file() else {}
    return note if note.get("words") == list(stage.words) else {}


def done(out: Path, stage: Stage) -> dict[str, Any]:
    """What is noted of a stage that is done or skipped, see the module; else nothing."""
    note = noted(out, stage)
    if note.get("state") == "skipped":
        return note if note.get("reason") == stage.skip else {}
    there = all((out / name).exists() for name in stage.outputs)
    return note if there and note.get("state") == "done" and not stale(out, stage) else {}


def stale(out: Path, stage: Stage) -> bool:
    """Whether what an earlier start of the stage left was made of something else."""
    note = noted(out, stage)
    if not note:
        return False
    files = _sources(out, stage)
    made_of = note.get("made_of")
    if made_of is None:  # a note of an earlier version: by the files' times
        return any(path.stat().st_mtime > note["time"] for path in files.values())
    return any(made_of.get(name) != sha256_of(path) for name, path in files.items())


def made_of(out: Path, stage: Stage) -> dict[str, str]:
    """Sha256 of all that the stage reads and that is there."""
    return {name: sha256_of(path) for name, path in _sources(out, stage).items()}


def _sources(out: Path, stage: Stage) -> dict[str, Path]:
    """The files that stand for what a stage reads: of a run, the manifest of its newest weights."""
    found = {}
    for name in stage.reads:
        path = out / name
        if path.is_dir():
            path = [path, *checkpoint.all_checkpoints(path)][-1] / "manifest.json"
        if path.is_file():
            found[name] = path
    return found


def earlier_seconds(out: Path, stage: Stage) -> float:
    """Seconds that the stage's starts before this one took, if this one goes on from them."""
    note = noted(out, stage)
    begun = note.get("state") in UNFINISHED
    goes_on = begun or any((out / name).exists() for name in stage.outputs)
    return float(note.get("seconds", 0.0)) if goes_on and not stale(out, stage) else 0.0


def keep(
    out: Path, stage: Stage, state: str, seconds: float, of: dict[str, str], code: int = 0
) -> None:
    """Note a stage; `of` is what it was made of, as `made_of` gave it before the start."""
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
        "reason": stage.skip,
    }
    write_json(out / "stages" / f"{stage.name}.json", note)


def shown(out: Path, stage: Stage) -> dict[str, Any]:
    """A stage as study.json has it: its note if it is done, skipped or failed, else it waits."""
    if found := done(out, stage):
        return found
    note = noted(out, stage)
    return note if note.get("state") == "failed" else {"name": stage.name, "state": "waiting"}
