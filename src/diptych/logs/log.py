"""A log of anybody's training as numbers by step, with all that was assumed about it.

per epoch   steps that begin anew with each epoch are counted on; the length of an epoch is the
            `/total` beside them, else the largest step seen
resumed     steps that go back without a new epoch, also where others go back with one: rows of the
            same or later steps that were written before are left out
grid        most logs hold every k-th step; a gap is a distance of more than k
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from diptych.errors import UserError
from diptych.logs.columns import (
    MB,
    Columns,
    add_step_time,
    choose_columns,
    counted,
    megabytes_of,
    plain,
    seconds_of,
)
from diptych.logs.readers import read_table
from diptych.logs.table import TOTAL, Row, Table
from diptych.runs.reader import FILES, Run, Series, read_run
from diptych.types import Float64, Int64

# More restarts than this share of the rows: the steps are no steps.
MOST_RESTARTS = 0.05
# Columns that hold a setting, if their value never changes.
SETTINGS = ("batch_size", "train_batch_size", "seed", "num_gpus", "world_size")
Fact = tuple[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Log(Series):
    """A log; its times are those of a column, or follow from the times at which rows were written.

    Its `folder` is what was read, a file or a folder.

    Attributes:
        format: name of its format.
        columns: the column of each role.
        rows: rows in the file, of which `without_loss` have none.
        stride: usual distance of two steps.
        missing: rows that the grid lacks.
        epochs_known: True if the log tells its epochs.
        epoch_seconds: epoch (1-based) -> seconds, where a column gives them.
        settings: what the log says of settings.
        facts: what was assumed or left out: keys of the report's texts below `log`, with numbers.
    """

    format: str
    columns: Columns
    rows: int
    without_loss: int
    stride: int
    missing: int
    epochs_known: bool
    epoch_seconds: Mapping[int, float]
    settings: Mapping[str, Any]
    facts: tuple[Fact, ...] = ()
    restarts: tuple[int, ...] = ()

    @property
    def starts(self) -> list[int]:
        return [0, *self.restarts]

    @property
    def file(self) -> Path:
        """The file that is cited: the log, or the metrics of a run folder."""
        inside = self.folder / "metrics.jsonl"
        return inside if inside.is_file() else self.folder


def read_log(path: str | Path, columns: Mapping[str, str] | None = None, name: str = "") -> Log:
    """Read a log file, a folder that holds one, or a run folder of `diptych train`.

    Args:
        columns: role -> column, for roles of `columns.ROLES`; the others are guessed by name.
        name: its label; "": the file's name.

    Raises:
        UserError: not readable, empty, without a loss, or with steps that are none.
    """
    path = Path(path)
    name = name or path.stem or str(path)
    if not columns and path.is_dir() and all((path / each).is_file() for each in FILES):
        return _of_run(path, name, read_run(path, strict=False))
    table = read_table(path)
    summed = add_step_time(table.rows)
    chosen = choose_columns(table.rows, columns or {}, str(path))
    reading = _Reading(path, name, table, chosen)
    if summed and chosen.of.get("step_time") == summed:
        reading.facts.append(("summed", {"column": summed}))
    return reading.log()


def _of_run(path: Path, name: str, run: Run) -> Log:
    """A run folder as a log."""
    known = {key: key for key in ("step", "epoch", "loss", "lr", "grad_norm")}
    known |= {"step_time": "data_s + compute_s", "memory": "memory_mb"}
    arrays = ("step", "epoch", "loss", "lr", "grad_norm", "data_s", "compute_s", "synced",
              "memory_mb", "ended", "gaps", "repeated", "torn")  # fmt: skip
    size = run.config.train.batch_size
    restarts = tuple(step for step in run.starts[1:] if step < run.step[-1])
    return Log(
        **{key: getattr(run, key) for key in arrays},
        name=name,
        folder=path,
        format=f"Diptych run ({run.backend})",
        columns=Columns(known, tuple(known)),
        rows=int(run.step.size),
        without_loss=0,
        stride=1,
        missing=sum(b - a + 1 for a, b in run.gaps),
        epochs_known=True,
        epoch_seconds={},
        settings={"batch_size": size, "seed": run.config.seed},
        restarts=restarts,
    )


class _Reading:
    """One log on its way from a table to numbers by step."""

    def __init__(self, path: Path, name: str, table: Table, columns: Columns) -> None:
        self.path, self.name, self.table, self.columns = path, name, table, columns
        self.facts: list[Fact] = []
        loss = columns.of["loss"]
        self.rows = [row for row in table.rows if loss in row]

    def log(self) -> Log:
        table, columns = self.table, self.columns
        rows, steps, restarts, repeated = self._ordered(*self._steps())
        if table.damaged:
            self.facts.append(("damaged", {"why": table.damaged}))
        if table.skipped:
            self.facts.append(("skipped", {"n": table.skipped}))
        if table.thousands:
            self.facts.append(("thousands", {"n": table.thousands}))
        if table.unclear:
            self.facts.append(("unclear", {"n": table.unclear}))
        if columns.others and "loss" not in columns.given:
            self.facts.append(("others", {"columns": list(columns.others)}))
        stride, gaps, missing = _grid(steps)
        step_s = self._times(rows, steps, stride, restarts)
        epochs = _finite(self._column(rows, "epoch"))
        first = np.nanmin(epochs) if np.isfinite(epochs).any() else 0.0
        whole = np.nan_to_num(np.floor(epochs - (first if first >= 1 else 0.0)))
        ended = self._column(rows, "time")
        return Log(
            name=self.name,
            step=steps,
            epoch=whole.astype(np.int64),
            loss=_finite(self._column(rows, "loss")),
            lr=self._column(rows, "lr"),
            grad_norm=self._column(rows, "grad_norm"),
            data_s=np.zeros(len(rows)),
            compute_s=step_s,
            synced=np.isfinite(step_s),
            memory_mb=self._memory(rows),
            torn=table.torn,
            ended=ended,
            gaps=gaps,
            repeated=repeated,
            folder=self.path,
            format=table.format,
            columns=columns,
            rows=len(table.rows),
            without_loss=len(table.rows) - len(self.rows),
            stride=stride,
            missing=missing,
            epochs_known="epoch" in columns.of,
            epoch_seconds=self._epoch_seconds(),
            settings=self._settings(),
            facts=tuple(self.facts),
            restarts=restarts,
        )

    def _column(self, rows: list[Row], role: str) -> Float64:
        name = self.columns.of.get(role, "")
        return np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)

    def _steps(self) -> tuple[Int64, Float64]:
        """The step and the epoch of each row, as the log has them or counted."""
        steps, epochs = self._column(self.rows, "step"), self._column(self.rows, "epoch")
        if np.isfinite(steps).any():
            kept = np.isfinite(steps)
            if not kept.all():
                self.facts.append(("no_step", {"n": int(np.count_nonzero(~kept))}))
            self.rows = [row for row, known in zip(self.rows, kept, strict=True) if known]
            steps, epochs = steps[kept], epochs[kept]
            bad = np.flatnonzero((steps != np.floor(steps)) | (np.abs(steps) > 2**53) | (steps < 0))
            if bad.size:
                column = self.columns.of["step"]
                raise UserError(
                    f"{self.path}: column '{column}' holds {steps[bad[0]]:g}, which is not a step; "
                    "name the steps' column with --columns step=COLUMN"
                )
            return self._counted_on(steps.astype(np.int64), epochs), epochs
        known = np.isfinite(epochs)
        if known.all() and (np.diff(epochs) > 0).all() and (epochs == np.floor(epochs)).all():
            self.facts.append(("epochs_only", {}))
            return epochs.astype(np.int64), epochs
        self.facts.append(("numbered", {"n": len(self.rows)}))
        return np.arange(1, len(self.rows) + 1, dtype=np.int64), epochs

    def _counted_on(self, steps: Int64, epochs: Float64) -> Int64:
        """Steps that begin anew with each epoch, counted on: at least half of the falls of the step
        are rises of the epoch. The other falls are restarts, or repeated rows."""
        back = np.diff(steps) <= 0
        anew = int(np.count_nonzero(back & (np.diff(epochs) > 0)))
        if not anew or not np.isfinite(epochs).all() or 2 * anew < np.count_nonzero(back):
            return steps
        total = self.columns.of["step"] + TOTAL
        given = {row.get(total) for row in self.rows}
        length = given.pop() if len(given) == 1 else None
        ahead = np.diff(steps)[np.diff(steps) > 0]
        stride = int(np.median(ahead)) if ahead.size else 1
        seen = int(steps.max()) + (stride if steps.min() < stride else 0)
        told = length is not None and length >= steps.max()
        per_epoch = int(length) if told and length is not None else max(seen, 1)
        key = "per_epoch" if told else "per_epoch_seen"
        self.facts.append((key, {"n": per_epoch}))
        first = int(epochs.min())
        base = epochs.astype(np.int64) - (first if first <= 1 else 1)
        return base * per_epoch + steps

    def _ordered(
        self, steps: Int64, epochs: Float64
    ) -> tuple[list[Row], Int64, tuple[int, ...], int]:
        """Rows in ascending order of steps, of repeated steps the last row."""
        back = np.flatnonzero(np.diff(steps) < 0)
        if steps.size > 20 and back.size > max(2, MOST_RESTARTS * steps.size):
            column = self.columns.of.get("step", "")
            raise UserError(
                f"{self.path}: the steps go back {back.size} times in {steps.size} rows, so column "
                f"'{column}' is hardly the step; name it with --columns step=COLUMN"
            )
        kept: list[int] = []
        restarts: list[int] = []
        for i, step in enumerate(steps.tolist()):
            if kept and step < steps[kept[-1]]:
                restarts.append(step - 1)
            while kept and steps[kept[-1]] >= step:
                kept.pop()
            kept.append(i)
        rows = [self.rows[i] for i in kept]
        if restarts:
            self.facts.append(("resumed", {"steps": [max(0, step) for step in restarts]}))
        return rows, steps[kept], tuple(restarts), len(self.rows) - len(kept)

    def _times(
        self, rows: list[Row], steps: Int64, stride: int, restarts: tuple[int, ...]
    ) -> Float64:
        """Seconds of a step; NaN where unknown."""
        column = self.columns.of.get("step_time")
        if column is not None:
            times = self._column(rows, "step_time") * seconds_of(column)
            known = times[np.isfinite(times)]
            grows = known.size > 2 and (np.diff(known) >= 0).all() and known[-1] > 2 * known[0]
            guessed = "step_time" not in self.columns.given
            if grows and guessed and known.size > 9:
                self.facts.append(("elapsed", {"column": column}))
                return self._derived(times, steps, stride, restarts)
            wrong = times < 0
            if wrong.any():
                self.facts.append(("negative_times", {"n": int(np.count_nonzero(wrong))}))
            return np.where(wrong, np.nan, times)
        column = self.columns.of.get("time")
        if column is None:
            return np.full(len(rows), np.nan)
        self.facts.append(("times_derived", {"column": column}))
        return self._derived(self._column(rows, "time"), steps, stride, restarts)

    def _derived(
        self, times: Float64, steps: Int64, stride: int, restarts: tuple[int, ...]
    ) -> Float64:
        """Seconds of a step from the times of writing; NaN across gaps and restarts."""
        found = np.full(steps.size, np.nan)
        if steps.size > 1:
            apart, took = np.diff(steps), np.diff(times)
            broken = np.isin(steps[1:] - 1, restarts) | (apart != stride) | (took < 0)
            found[1:] = np.where(broken, np.nan, took / apart)
        return found

    def _memory(self, rows: list[Row]) -> Float64:
        values = self._column(rows, "memory")
        column = self.columns.of.get("memory")
        if column is None:
            return values
        unit = megabytes_of(column)
        if unit is not None:
            return values * unit
        if np.isfinite(values).any() and np.nanmax(values) > 1e7:
            self.facts.append(("memory_bytes", {"column": column}))
            return values * MB["bytes"]
        self.facts.append(("memory_mb", {"column": column}))
        return values

    def _epoch_seconds(self) -> dict[int, float]:
        time, epoch = self.columns.of.get("epoch_time"), self.columns.of.get("epoch")
        if time is None:
            return {}
        scale = seconds_of(time)
        rows = [row for row in self.table.rows if time in row and row[time] >= 0]
        if epoch is None:
            return {i: row[time] * scale for i, row in enumerate(rows, start=1)}
        known = [row for row in rows if math.isfinite(row.get(epoch, math.nan))]
        zero = min((row[epoch] for row in known), default=1) < 1
        return {int(row[epoch]) + zero: row[time] * scale for row in known}

    def _settings(self) -> dict[str, Any]:
        found = dict(self.table.settings)
        for name in counted(self.table.rows):
            if plain(name).split("/")[-1] in SETTINGS:
                values = {row[name] for row in self.table.rows if name in row}
                if len(values) == 1:
                    value = values.pop()
                    found[plain(name)] = int(value) if value.is_integer() else value
        return found


def _finite(values: Float64) -> Float64:
    """The values, with NaN for any that is not finite."""
    return np.where(np.isfinite(values), values, np.nan)


def _grid(steps: Int64) -> tuple[int, tuple[tuple[int, int], ...], int]:
    """The usual distance of steps, the gaps beyond it, and how many rows they lack."""
    if steps.size < 2:
        return 1, (), 0
    apart = np.diff(steps)
    stride = max(1, int(np.median(apart)))
    gaps, missing = [], 0
    for before, after in pairwise(steps.tolist()):
        if after - before >= 2 * stride:
            gaps.append((before + stride, after - stride))
            missing += (after - before) // stride - 1
    return stride, tuple(gaps), missing


def labels(paths: list[Path], given: tuple[str, ...] = ()) -> list[str]:
    """A label of each log: those given, else file names, with as much of the path as tells them
    apart.

    Raises:
        UserError: as many labels as logs are needed, each once.
    """
    if given:
        if len(given) != len(paths) or len(set(given)) != len(given):
            raise UserError(
                f"--label: give one for each log, all different; labels: {', '.join(given)}; logs: "
                f"{', '.join(map(str, paths))}"
            )
        return list(given)
    parts = [path.absolute().parts for path in paths]
    for depth in range(1, 8):
        found = ["/".join(each[-depth:]) for each in parts]
        if len(set(found)) == len(found):
            return _shortened(found)
    return [f"{path.name} ({i})" for i, path in enumerate(paths, start=1)]


def _shortened(names: list[str]) -> list[str]:
    """Names without a common ending: `a/loss.txt` and `b/loss.txt` as `a` and `b`."""
    split = [name.split("/") for name in names]
    while len(split[0]) > 1 and len({each[-1] for each in split}) == 1:
        split = [each[:-1] for each in split]
    return ["/".join(each) for each in split]
