"""A study as `diptych reproduce` records it in study.json: its request, runs and stages.

A report accepts a study's folder in place of its runs; the page then describes the study, the
stages that it skipped and those still to be done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import UserError
from diptych.runs.records import StudyNotes

NAME = "study.json"


@dataclass(frozen=True)
class Stage:
    """A stage; its state is "done", "skipped" (for `reason`), "failed", or else: not done yet.

    why: `reason` as one word, see `diptych.study.reproduce.stages`; linked: a training's run.
    """

    name: str
    state: str
    seconds: float
    reason: str
    why: str
    linked: str


@dataclass(frozen=True)
class Plan:
    """A study's folder and the content of its study.json."""

    folder: Path
    preset: str
    quick: bool
    backends: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: Mapping[str, Path]
    stages: tuple[Stage, ...]

    @property
    def path(self) -> Path:
        """The path of study.json."""
        return self.folder / NAME

    @property
    def begun(self) -> tuple[Path, ...]:
        """The run folders that hold a step.

        Raises:
            UserError: if none of them does.
        """
        found = tuple(run for run in self.runs.values() if _holds_a_step(run))
        if not found:
            raise UserError(
                f"{self.folder}: no run of the study has begun, or none is where {NAME} says; go "
                "on with diptych reproduce, or give the run folders, and this one as --search"
            )
        return found

    @property
    def absent(self) -> tuple[str, ...]:
        """The names of the runs without a recorded step."""
        return tuple(name for name, run in self.runs.items() if not _holds_a_step(run))


def is_study(folder: Path) -> bool:
    """True if the folder is a study's and not a run's."""
    return (folder / NAME).is_file() and not (folder / "metrics.jsonl").exists()


def read_plan(folder: Path) -> Plan:
    """Read the study.json of a folder.

    Raises:
        UserError: if it is missing, or not as `diptych reproduce` writes it.
    """
    path = folder / NAME
    if not path.is_file():
        raise UserError(f"{folder}: no study: {NAME} missing; run diptych reproduce first")
    found = StudyNotes.read(path)
    stages = [
        Stage(s.name, s.state, s.seconds or 0.0, s.reason or "", s.why or "", s.linked or "")
        for s in found.stages
    ]
    runs = {name: folder / place for name, place in found.runs.items()}  # or absolute
    asked = found.preset or folder.resolve().name, found.quick, tuple(found.backends)
    return Plan(folder, *asked, tuple(found.seeds), runs, tuple(stages))


def opened(folders: Sequence[Path]) -> tuple[list[Path], list[Path], Plan | None]:
    """Expand studies to runs; return run folders, study folders, and the plan of a lone study.

    The plan is None if other folders are given too: the page is not a study's then.
    """
    runs: list[Path] = []
    studies = [folder for folder in folders if is_study(folder)]
    for folder in folders:
        runs += read_plan(folder).begun if folder in studies else [folder]
    return runs, studies, read_plan(folders[0]) if studies and len(folders) == 1 else None


def _holds_a_step(run: Path) -> bool:
    path = run / "metrics.jsonl"
    return path.is_file() and path.stat().st_size > 0
