"""The state of a run as its files show it, from any process or machine that can read them.

Nothing in the run folder is written or locked. A run is at work if its lock file is locked, as
Linux lists it for this machine, or if the lock file is there and the records have just grown (a run
on another machine). After a kill -9 elsewhere it is called running for up to QUIET_S seconds.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from diptych.config.load import Config, flatten, load_config, preset_names
from diptych.errors import UserError
from diptych.files import Line, Tail, look, read_json
from diptych.files.locks import LOCK
from diptych.runs import checkpoint
from diptych.runs.reader import last_step, starts_of
from diptych.runs.records import Scores, number, whole

MOST_BYTES = 32 * 2**20  # of metrics.jsonl at the first reading: its end, some 100,000 steps
MEAN, SPEED = 100, 200  # rows of the smoothed loss; rows that the speed is taken from
LOCKS = Path("/proc/locks")  # some sandboxes leave it empty
QUIET_S, QUIET_ALONE_S = 90.0, 900.0  # with a row of resources each second, and without
SCORE_BYTES = 2**20
NEAR = 10  # settings by which a run may differ from a preset and still be called after it
# Settings that say nothing about which preset a run was made from.
_APART = ("seed", "data.source", "data.split", "data.skip_bad")


@dataclass(frozen=True)
class Row:
    """Record of a step: `ended` is seconds since 1970, `spent` the seconds it took."""

    step: int
    epoch: int
    loss: float
    ended: float | None
    spent: float
    memory_mb: float | None


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    Attributes:
        state: running, stopped or complete.
        preset: the preset it was made from, `NAME+2` if two settings differ; None: none is near.
        step, steps: the last recorded step and the last one asked for; None: not known.
        loss, smoothed: of the last step, and the mean of the last MEAN.
        validation: the newest (step, loss) of held-out pictures.
        steps_per_s: over the last SPEED steps of this start.
        losses: of the steps that were read, in order.
        unread: lines in the midst of the metrics that are no rows.
    """

    run: Path
    state: str
    backend: str | None
    preset: str | None
    source: str
    step: int
    steps: int | None
    epoch: int | None
    loss: float | None
    smoothed: float | None
    validation: tuple[int, float] | None
    steps_per_s: float | None
    memory_mb: float | None
    grid: Path | None
    losses: Sequence[float]
    unread: int

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last step at the present speed; None if it is not running."""
        if self.state != "running" or not self.steps_per_s or self.steps is None:
            return None
        return max(0, self.steps - self.step) / self.steps_per_s

    def facts(self) -> dict[str, Any]:
        """The status for programs: JSON values."""
        found = {
            key: getattr(self, key)
            for key in (
                "state",
                "backend",
                "preset",
                "source",
                "step",
                "steps",
                "epoch",
                "loss",
                "smoothed",
                "steps_per_s",
                "seconds_left",
                "memory_mb",
                "unread",
            )
        }
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in found.items()
        }
        at, value = self.validation or (None, None)
        return {
            "run": str(self.run),
            **finite,
            "validation_step": at,
            "validation_loss": value,
            "grid": None if self.grid is None else str(self.grid),
        }


class Follower:
    """Reads the status of a run again and again; of metrics.jsonl only what is new.

    Args:
        run: the run folder.
        most_bytes: how much of metrics.jsonl is read at first, from its end.

    Raises:
        UserError: not a run folder, or settings that cannot be read.
    """

    def __init__(self, run: Path, most_bytes: int = MOST_BYTES) -> None:
        if not (run / "config.yaml").is_file():
            what = {"folder": "has no config.yaml", "": "there is no such folder"}
            raise UserError(
                f"{run}: is not a run ({what.get(look(run), 'is a file')}); give the --out folder "
                "of diptych train"
            )
        self.run, self.tail = run, Tail(most_bytes)
        self.config = load_config(str(run / "config.yaml"))
        self.preset = nearest_preset(self.config)
        self._forget()

    def _forget(self) -> None:
        self.unread = 0
        self.losses: list[float] = []
        self.rows: list[Row] = []
        self.validation: tuple[int, float] | None = None

    def read(self) -> Status:
        """The status now. A file that cannot be read at this moment is read the next time."""
        with contextlib.suppress(OSError):  # a network file system that lost the old version
            self._read_rows()
        environment = self._environment()
        steps = last_step(self.config, environment)
        last = self.rows[-1] if self.rows else None
        saved = [int(p.name.removeprefix("step-")) for p in checkpoint.all_checkpoints(self.run)]
        if at_work(self.run):
            state = "running"
        else:
            state = (
                "complete" if steps is not None and max(saved, default=0) >= steps else "stopped"
            )
        grids = sorted((self.run / "grids").glob("step-*.png"))
        recent = self.losses[-MEAN:]
        backend = environment.get("backend")
        return Status(
            run=self.run,
            state=state,
            backend=backend if isinstance(backend, str) else None,
            preset=self.preset,
            source=self.config.data.source,
            step=last.step if last else max(saved, default=0),
            steps=steps,
            epoch=last.epoch if last else None,
            loss=last.loss if last else None,
            smoothed=sum(recent) / len(recent) if recent else None,
            validation=self.validation,
            steps_per_s=speed(self.rows, starts_of(environment)[-1]),
            memory_mb=last.memory_mb if last else None,
            grid=grids[-1] if grids else None,
            losses=tuple(self.losses),
            unread=self.unread,
        )

    def _environment(self) -> dict[str, Any]:
        try:
            return read_json(self.run / "environment.json", finite=False)
        except UserError:  # not there yet
            return {}

    def _read_rows(self) -> None:
        path = self.run / "metrics.jsonl"
        if path.is_file():
            for line in self.tail.read(path, self._forget):
                self._take(line)
            del self.rows[: -SPEED - 1]

    def _take(self, line: Line) -> None:
        row = line.value
        try:
            if whole(row["step"], 1) is None or whole(row["epoch"]) is None:
                raise ValueError("no step")
            loss = float(row["loss"])
            spent = float(row["data_s"]) + float(row["compute_s"])
        except (ValueError, KeyError, TypeError):
            self.unread += not line.blank
            return
        ended, memory = number(row.get("ended")), number(row.get("memory_mb"))
        self.rows.append(Row(row["step"], row["epoch"], loss, ended, spent, memory))
        self.losses.append(loss)
        validation = number(row.get("validation_loss"))
        if validation is not None:
            self.validation = row["step"], validation


def speed(rows: Sequence[Row], start: int) -> float | None:
    """Steps per second of the rows after the step `start`; None for fewer than two."""
    here = [row for row in rows if row.step > start]
    if len(here) < 2:
        return None
    first, last = here[0], here[-1]
    if first.ended is not None and last.ended is not None:
        seconds = last.ended - first.ended
    else:
        seconds = sum(row.spent for row in here[1:])
    return (last.step - first.step) / seconds if seconds > 0 else None


def at_work(run: Path) -> bool:
    """True if a process trains in this folder now; see the module."""
    lock = run / LOCK
    try:
        found = lock.stat()
    except OSError:
        return False
    if (found.st_dev, found.st_ino) in _locked():
        return True
    quiet = QUIET_S if (run / "resources.jsonl").is_file() else QUIET_ALONE_S
    changed = [found.st_mtime]
    for name in ("metrics.jsonl", "resources.jsonl", "events.jsonl"):
        try:
            changed.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return time.time() - max(changed) < quiet


def _locked() -> set[tuple[int, int]]:
    """Device and inode of the files that are locked on this machine, as far as Linux shows it."""
    found: set[tuple[int, int]] = set()
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        for word in line.split():
            parts = word.split(":")
            if len(parts) == 3 and all(parts):
                try:
                    device = os.makedev(int(parts[0], 16), int(parts[1], 16))
                    found.add((device, int(parts[2])))
                except ValueError:
                    continue
    return found


def nearest_preset(config: Config) -> str | None:
    """The preset with the fewest other settings: `mnist`, or `mnist+2` if two differ.

    Durations, the seed and the place of the data do not count; None if more than NEAR differ.
    """

    mine = _told(config)
    counts = {
        name: sum(mine.get(key) != theirs.get(key) for key in {*mine, *theirs})
        for name, theirs in _presets().items()
    }
    name = min(counts, key=lambda each: counts[each])
    if counts[name] > NEAR:
        return None
    return f"{name}+{counts[name]}" if counts[name] else name


def _told(config: Config) -> dict[str, Any]:
    """The settings that tell presets apart."""
    skipped = {*_APART, *config.duration_keys, "train.epochs", "train.steps"}
    return {key: value for key, value in flatten(config).items() if key not in skipped}


@cache
def _presets() -> dict[str, dict[str, Any]]:
    return {name: _told(load_config(name)) for name in preset_names()}


def find_runs(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """The run folders below a folder, sorted, and the folders that cannot be read with the reason.

    Raises:
        UserError: no such folder.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give a folder that holds runs")
    found: list[Path] = []
    unreadable: dict[str, str] = {}

    def refused(error: OSError) -> None:
        unreadable[str(error.filename)] = error.strerror or str(error)

    for place, folders, files in os.walk(folder, onerror=refused):
        begun = {"metrics.jsonl", "environment.json"} & {*files} or "checkpoints" in folders
        if begun and "config.yaml" in files and "manifest.json" not in files:
            found.append(Path(place))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
    return sorted(found), unreadable


def newest_score(run: Path, beside: Sequence[Path] = ()) -> dict[str, Any] | None:
    """The newest score of a run: metric, value and file; None if there is none.

    Args:
        run: every file of scores in it and in its folders counts.
        beside: further files of scores; those count that scored this run's weights.
    """
    own = [*run.glob("*.json"), *run.glob("*/*.json")]
    weights = {_json(path).get("weights_sha256") for path in run.glob("samples/*/manifest.json")}
    best: tuple[float, Path, dict[str, Any]] | None = None
    for path in (*own, *beside):
        scores = scores_in(path)
        if not scores:
            continue
        first = scores[0]
        if path not in own and first["subject"].get("weights_sha256") not in weights - {None}:
            continue
        changed = path.stat().st_mtime
        if best is None or changed > best[0]:
            best = changed, path, first
    if best is None:
        return None
    return {"metric": best[2]["metric"], "value": best[2]["value"], "file": str(best[1])}


def _json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path, most_bytes=SCORE_BYTES)
    except UserError:
        return {}


def scores_in(path: Path) -> list[dict[str, Any]]:
    """The scores of a file of `diptych evaluate --out`; none of another file."""
    content = _json(path)
    if "scores" not in content:
        return []
    try:
        Scores.of(content, str(path))
    except UserError:
        return []
    return list(content["scores"])
