"""Causes of slow steps: one for each outlier, from the records beside it, or none.

    wall     time from the end of the previous step to the end of this one, including work between
             them (a checkpoint, a grid). Older records lack it: data wait + compute
    outlier  wall > k * the run's median
    excess   wall - median; each possible cause explains some seconds of it, and the largest is
             the cause if it explains half or more. Work comes before waits, because waits prolong
             work too. Else the step is 'unexplained'

Causes and their evidence, each above its own median over the run:
    data          the wait for the batch
    checkpoint, grid, flush, histograms, validation, gc   events that overlap; a flush reads the
                  waiting losses, with the work that a lazy framework had deferred until then
    compile       kernels that the process had not loaded before the step
    first step    of a process, if no kernel is counted: allocation and warm-up
    neighbours    a computing thread was ready and had no processor, while other processes used
                  a tenth of a core or more;  scheduling: the same without such processes
    paused        no resource row was written for longer than usual and the process computed
                  nothing: it was stopped, or the machine slept
    steal         time taken by the hypervisor's other guests
    memory        time inside the kernel, with page faults
Seconds of two causes may overlap; nothing is summed.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.files import read_json
from diptych.runs.reader import starts_of
from diptych.runs.records import whole
from diptych.runs.watch import read_events, read_resources
from diptych.runs.watch.read import rows_of

SLOW = 2.0  # medians
HALF = 0.5
NEIGHBOURS_PERCENT = 10.0
COMPILER_S = 0.5
WAITING = ("neighbours", "scheduling", "paused", "steal", "memory")
INTERRUPTIONS = ("checkpoint", "grid", "flush", "histograms", "validation", "gc")

Row = dict[str, Any]


class Damaged(UserError):
    """Timing records of a run that hold something else where numbers belong."""


def attribute(run: Path, k: float = SLOW) -> dict[str, Any]:
    """Find each step slower than `k` medians, with its cause.

    Returns:
        k, median_s, steps (timed ones), outliers: [{step, seconds, excess_s, cause, share,
        causes: {cause: seconds}}], excess_s and share: the time beyond the median and its share
        of the time of all timed steps, by_cause: {cause: {steps, excess_s}}, unexplained: their
        number, evidence: the records that were found.

    Raises:
        UserError: if there is no run or no timed step, records are damaged, or k is 1 or less.
    """
    try:
        return _attribute(run, k)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Damaged(
            f"{run}: metrics.jsonl, resources.jsonl or events.jsonl holds something else where a "
            f"number belongs ({type(error).__name__}: {error}); restore the files"
        ) from error


def _attribute(run: Path, k: float) -> dict[str, Any]:
    if not k > 1:
        raise UserError(f"a slow step takes more than one median; {k:g} is not above 1")
    path = run / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run}: not a run folder: metrics.jsonl missing")
    rows = _timed(path)
    if not rows:
        raise UserError(f"{path}: no step was timed")
    records = _Records(run, rows)
    walls = np.array([records.wall(i) for i in range(len(rows))], dtype=np.float64)
    if not np.isfinite(walls).all():
        raise ValueError("a time that is not finite")
    median = float(np.median(walls))
    outliers = [
        _outlier(records, i, float(walls[i]), median) for i in np.flatnonzero(walls > k * median)
    ]
    by_cause: dict[str, dict[str, Any]] = {}
    for each in outliers:
        sums = by_cause.setdefault(each["cause"], {"steps": 0, "excess_s": 0.0})
        sums["steps"] += 1
        sums["excess_s"] += each["excess_s"]
    excess, total = sum((o["excess_s"] for o in outliers), 0.0), float(np.sum(walls))
    return {
        "k": k,
        "median_s": median,
        "steps": len(rows),
        "outliers": outliers,
        "excess_s": excess,
        "share": excess / total if total > 0 else 0.0,
        "by_cause": by_cause,
        "unexplained": by_cause.get("unexplained", {"steps": 0})["steps"],
        "evidence": records.evidence(),
    }


@dataclass(frozen=True)
class Slow:
    """The slow steps of a run as `attribute` finds them, or the reason for their absence.

    Attributes:
        found: the result of `attribute`; None if no step was timed or a record is damaged.
        damaged: the damaged file, "" if it is not known which; None if none is damaged.
    """

    found: dict[str, Any] | None
    damaged: str | None = None

    def summary(self) -> dict[str, Any] | None:
        """The result with the slow steps by number only, without the details of each."""
        if self.found is None:
            return None
        steps = [each["step"] for each in self.found["outliers"]]
        return {"steps": steps} | {k: v for k, v in self.found.items() if k not in HELD}

    def spent(self, *causes: str) -> float:
        """Seconds beyond the median that are attributed to these causes."""
        sums = self.found["by_cause"] if self.found else {}
        return float(sum(sums[cause]["excess_s"] for cause in causes if cause in sums))


HELD = ("outliers", "steps", "median_s")


def slow_steps(run: Path) -> Slow:
    """A run's slow steps, for `compare`, `report` and `profile --outliers` alike."""
    for file, read in (("resources.jsonl", read_resources), ("events.jsonl", read_events)):
        try:
            read(run)
        except UserError:
            return Slow(None, file)
    try:
        return Slow(attribute(run))
    except Damaged:
        return Slow(None, "")
    except UserError:
        return Slow(None)  # no timed step


def _timed(path: Path) -> list[Row]:
    """The synchronised steps in order; the last of several rows with the same step is used."""
    rows = {row["step"]: row for row in rows_of(path) if whole(row.get("step")) is not None}
    return [row for _, row in sorted(rows.items()) if row.get("synced") and "compute_s" in row]


def _outlier(records: _Records, i: int, wall: float, median: float) -> Row:
    excess = wall - median
    causes = {name: s for name, s in records.causes(i, wall, excess).items() if s > 0}
    name, share = _cause(causes, excess)
    step = int(records.rows[i]["step"])
    return {
        "step": step,
        "seconds": wall,
        "excess_s": excess,
        "cause": name,
        "share": share,
        "causes": causes,
    }


def _cause(causes: dict[str, float], excess: float) -> tuple[str, float]:
    """The cause and its share of the excess: work first, because waits prolong work too."""
    for kind in (False, True):
        same = {name: s for name, s in causes.items() if (name in WAITING) == kind}
        name, seconds = max(same.items(), key=lambda c: c[1], default=("", 0.0))
        if seconds >= HALF * excess:
            return name, min(1.0, seconds / excess)
    return "unexplained", min(1.0, max(causes.values(), default=0.0) / excess)


class _Records:
    """All timing records of a run."""

    def __init__(self, run: Path, rows: list[Row]) -> None:
        self.rows = rows
        self.events, self.resources = read_events(run), read_resources(run)
        self.times = [row["time"] for row in self.resources]
        environment = run / "environment.json"
        starts = starts_of(read_json(environment)) if environment.is_file() else []
        self.first = {1, *(step + 1 for step in starts)}
        self.usual = {
            key: float(np.median([row[key] for row in rows if row.get(key) is not None] or [0.0]))
            for key in ("data_s", "compute_s", "queue_s", "system_s", "page_faults")
        }
        self.usual_gap = float(np.median(np.diff(self.times))) if len(self.times) > 1 else np.inf
        self.steal = float(np.median([r.get("steal_percent", 0.0) for r in self.resources] or [0]))

    def evidence(self) -> list[str]:
        """The names of the records that exist."""
        keys = [key for key in ("ended", "queue_s") if any(key in row for row in self.rows)]
        files = {"resources": self.resources, "events": self.events}
        return keys + [name for name, found in files.items() if found]

    def began(self, i: int) -> float | None:
        """The end of the previous step; None if not recorded, or if a new process began."""
        row, before = self.rows[i], self.rows[i - 1] if i else {}
        consecutive = before.get("step") == row["step"] - 1 and row["step"] not in self.first
        return before.get("ended") if consecutive and "ended" in row else None

    def wall(self, i: int) -> float:
        """Wall seconds of a step; see the module."""
        row, began = self.rows[i], self.began(i)
        computed = float(row["data_s"] + row["compute_s"])
        return computed if began is None else max(computed, row["ended"] - began)

    def causes(self, i: int, wall: float, excess: float) -> dict[str, float]:
        """Seconds that each possible cause explains."""
        row = self.rows[i]
        queued = self._above(row, "queue_s")
        found = {"data": self._above(row, "data_s")}
        if "ended" in row:
            began = row["ended"] - wall
            found |= self._interruptions(began, row["ended"])
            found["compile"] = self._compiled(began, row, queued)
            near = self._near(began, row["ended"])
            others = max((r.get("others_percent", 0.0) for r in near), default=0.0)
            found["neighbours" if others >= NEIGHBOURS_PERCENT else "scheduling"] = queued
            found["paused"] = self._paused(began, row["ended"]) - queued
            stolen = max((r.get("steal_percent", 0.0) for r in near), default=0.0) - self.steal
            found["steal"] = stolen / 100 * wall
        if row.get("page_faults", 0) > 2 * self.usual["page_faults"]:
            found["memory"] = self._above(row, "system_s")
        if row["step"] in self.first and not found.get("compile"):
            found["first step"] = max(0.0, self._above(row, "compute_s") - queued)
        return found

    def _above(self, row: Row, key: str) -> float:
        return max(0.0, float(row.get(key) or 0.0) - self.usual[key])

    def _interruptions(self, began: float, ended: float) -> dict[str, float]:
        found: dict[str, float] = {}
        for event in self.events:
            overlap = min(ended, event["time"] + event["seconds"]) - max(began, event["time"])
            if event["kind"] in INTERRUPTIONS and overlap > 0:
                found[event["kind"]] = found.get(event["kind"], 0.0) + overlap
        return found

    def _compiled(self, began: float, row: Row, queued: float) -> float:
        """Seconds of a step spent on new kernels; waits in a queue are subtracted unless a compiler
        ran."""
        seconds = sum(
            e["seconds"]
            for e in self.events
            if e["kind"] == "compile" and began - 1e-3 <= e["time"] < row["ended"]
        )
        if row.get("children_s", 0.0) < COMPILER_S:
            seconds -= queued
        return float(max(0.0, seconds))

    def _paused(self, began: float, ended: float) -> float:
        """Seconds of a step in which a resource row was overdue, minus those of computing."""
        found = 0.0
        first, last = bisect_left(self.times, began), bisect_left(self.times, ended)
        for before, row in pairwise(self.resources[max(0, first - 1) : last + 1]):
            overlap = min(ended, row["time"]) - max(began, before["time"] + self.usual_gap)
            if overlap > 0:
                found += overlap * max(0.0, 1 - row.get("cpu_percent", 100.0) / 100)
        return found

    def _near(self, began: float, ended: float) -> list[Row]:
        """Resource rows whose second overlaps the step."""
        first = bisect_left(self.times, began)
        last = bisect_left(self.times, ended) + 1
        return self.resources[first:last]
