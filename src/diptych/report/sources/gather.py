"""Further records of a run: sample folders, scores, sweeps, ladders, profiles, timings.

    in the run folder          belongs to the run
    beside it, or in --search  belongs to the run whose weights it names (by sha256 among the run's
                               checkpoints or its samples, else by the run's name, which the record
                               or its command gives); a record of no run is left out and counted

A record is recognised by its content (see `schemas`), not by its name. Other runs beside it are not
entered; profiles and timings of a backend that no run has are left out. Nothing is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.report.sources.schemas import known
from diptych.runs.checkpoint import weights_of
from diptych.runs.folder import backend_of

SKIPPED = {"checkpoints", "tensorboard", "grids", "cells", "traces", "report", "compare", "stages"}
DEPTH_IN, DEPTH_BESIDE, DEPTH_SEARCHED = 4, 2, 4
MOST_FOLDERS = 2000
MEASURED = "images"  # the folder of a study's sets that were sampled for scores and sweeps
MOST_SHOWN = 2  # sample folders per run


@dataclass(frozen=True)
class Record:
    """One record: its kind ("samples" or a value of `schemas.KINDS`), its file and its content.

    `run` is the index of the run that it belongs to, or None if it belongs to no single run; `by`
    says how that is known: "place", "weights", "images" (the run's samples have the same weights)
    or "name". `damaged` says why the content cannot be used; "" if it can.
    """

    kind: str
    path: Path
    content: dict[str, Any]
    run: int | None = None
    by: str = "place"
    damaged: str = ""

    @property
    def backend(self) -> str:
        """The backend that the record names; "" if it names none."""
        if self.kind == "scores":
            return str(self.content["scores"][0].get("subject", {}).get("backend") or "")
        return str(self.content.get("backend") or "")


@dataclass
class Gathered:
    """Records that belong to the runs, paths of those that belong to none, and damaged ones' paths
    with the reasons."""

    records: list[Record] = field(default_factory=list)
    foreign: list[Path] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)

    def of(self, kind: str, run: int | None = None) -> list[Record]:
        """The records of a kind, of one run if given."""
        return [r for r in self.records if r.kind == kind and run in (None, r.run)]

    def pictures(self) -> list[Record]:
        """Up to MOST_SHOWN sample folders per run, in turns; with a GIF first, then shallow.

        Sets that were sampled for scores (images/...) are used only if a run has no others.
        """
        ranked: list[tuple[int, int, Record]] = []
        for run in dict.fromkeys(r.run for r in self.of("samples")):
            own = [r for r in self.of("samples") if r.run == run]
            own = [r for r in own if MEASURED not in r.path.parts[-4:]] or own
            own.sort(key=lambda r: (not any(r.path.parent.glob("*.gif")), len(r.path.parts)))
            ranked += [(i, run or 0, r) for i, r in enumerate(own[:MOST_SHOWN])]
        return [r for *_, r in sorted(ranked, key=lambda entry: entry[:2])]


def gather(
    runs: Sequence[Path], search: Sequence[Path] = (), beside: Sequence[Path] | None = None
) -> Gathered:
    """Gather the records of these run folders.

    Args:
        runs: run folders that exist.
        search: more folders to look in.
        beside: the runs to look beside; None for all. A study holds its own records, wherever its
            runs are.
    """
    found = Gathered()
    seen: set[Path] = set()
    own = {run.resolve() for run in runs}
    places: list[tuple[Path, int, int | None]] = [(run, DEPTH_IN, i) for i, run in enumerate(runs)]
    places += [(folder, DEPTH_SEARCHED, None) for folder in search]
    near = dict.fromkeys(_beside(runs if beside is None else beside))
    places += [(folder, DEPTH_BESIDE, None) for folder in near]
    unclaimed: list[Record] = []
    for folder, depth, owner in places:
        for record in _walk(folder, depth, own - {folder.resolve()}):
            if record.path.resolve() in seen:
                continue
            seen.add(record.path.resolve())
            if record.damaged:
                found.damaged[record.path] = record.damaged
            elif owner is not None:
                found.records.append(Record(record.kind, record.path, record.content, owner))
            else:
                unclaimed.append(record)
    for record in sorted(unclaimed, key=lambda r: r.kind != "samples"):  # samples come first
        _claim(record, runs, found)
    found.records.sort(key=lambda r: str(r.path))
    return found


def _beside(runs: Sequence[Path]) -> Iterator[Path]:
    for run in runs:
        parent = run.resolve().parent
        yield parent
        if (parent.parent / "study.json").is_file():
            yield parent.parent


def weights_named(record: Record) -> set[str]:
    """The sha256 of the weights that a record names."""
    content = record.content
    if record.kind == "scores":
        found = {score.get("subject", {}).get("weights_sha256") for score in content["scores"]}
    elif record.kind == "sweep":
        found = {content.get("request", {}).get("weights_sha256")}
    else:
        found = {content.get("weights_sha256")}
    return {str(sha) for sha in found if sha}


def _walk(folder: Path, depth: int, others: set[Path]) -> Iterator[Record]:
    """The records below a folder, in order of path, without other runs."""
    visited = 0
    for top, folders, names in os.walk(folder):
        here = Path(top)
        level = len(here.relative_to(folder).parts)
        visited += 1
        foreign_run = here != folder and {"metrics.jsonl", "config.yaml"} <= set(names)
        if visited > MOST_FOLDERS or foreign_run or (level and here.resolve() in others):
            folders.clear()
            continue
        folders[:] = sorted(f for f in folders if f not in SKIPPED and not f.startswith("."))
        if level >= depth:
            folders.clear()
        for name in sorted(names):
            found = known(here / name) if name.endswith(".json") else None
            if found is not None:
                yield Record(found[0], here / name, found[1], damaged=found[2])


def _backend(run: Path) -> str | None:
    """The backend that made a run; None if environment.json cannot be read."""
    try:
        return backend_of(run)
    except UserError:
        return None


def _claim(record: Record, runs: Sequence[Path], found: Gathered) -> None:
    """Give the record to the run it belongs to, or count it as foreign."""
    if record.kind in ("ladder", "training"):
        found.records.append(record)  # belongs to a pair, not to one run
        return
    if record.kind in ("profile", "batches"):
        ours = record.backend in {_backend(run) for run in runs}
        found.records.extend([record] if ours else [])
        found.foreign.extend([] if ours else [record.path])
        return
    owner, by = _owner(record, runs, found)
    if owner is None:
        found.foreign.append(record.path)
    else:
        found.records.append(Record(record.kind, record.path, record.content, owner, by))


def _owner(record: Record, runs: Sequence[Path], found: Gathered) -> tuple[int | None, str]:
    """The run that a record belongs to, and how that is known; None if none or ambiguous."""
    shas = weights_named(record)
    for i, run in enumerate(runs):
        if shas & set(weights_of(run)):
            return i, "weights"
    for i in range(len(runs)):
        if shas & {r.content.get("weights_sha256") for r in found.of("samples", i)}:
            return i, "images"
    alike = [_named(record, run) for run in runs]
    named = [i for i, own in enumerate(alike) if own]
    if len(named) > 1:  # folders of the same name: take the one beside the record
        named = [i for i in named if runs[i].resolve().parent in record.path.resolve().parents]
    return (named[0], "name") if len(named) == 1 else (None, "")


def _named(record: Record, run: Path) -> bool:
    """True if the record names the run, and has its backend or names none or is a sweep."""
    name = run.resolve().name
    if record.kind != "sweep" and record.backend not in ("", _backend(run)):
        return False
    if record.kind == "samples":
        command = (record.content.get("environment") or {}).get("command") or []
        places = [Path(str(word)) for word in command[2:]]  # a run's, or a checkpoint's in it
        runs = {(p.parents[1] if p.parent.name == "checkpoints" else p).name for p in places}
        return record.content.get("weights_from") == name or name in runs
    return record.path.stem == name or record.path.stem.startswith(f"{name}-")
