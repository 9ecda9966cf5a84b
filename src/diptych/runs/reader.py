"""Reader of a run folder: its settings, its environment, and one row per step.

`metrics.jsonl` holds one JSON object per line. A run that was killed may end in a torn line; that
line is left out and reported. A broken line anywhere else, or a missing or repeated step, makes the
record untrustworthy: it is refused with the line number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych.config.load import Config, flatten, load_config
from diptych.errors import UserError
from diptych.files import read_json, read_lines
from diptych.runs.records import MOST, Environment, number, whole
from diptych.types import Bool, Float64, Int64

FILES = ("config.yaml", "environment.json", "metrics.jsonl")
EXPECTED = "expected the --out folder of `diptych train`"
# True if a null or a NaN may replace the number: a loss that was not finite, or memory that
# could not be read. A time is always known.
OPTIONAL = {
    "loss": True,
    "lr": True,
    "grad_norm": True,
    "data_s": False,
    "compute_s": False,
    "memory_mb": True,
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """Numbers of a training by step; every array has one entry per row, in order of `step`.

    Attributes:
        name: a run's own folder name, or a log's label; `folder` is its path.
        step: 1-based in a run, ascending; `epoch` is 0-based.
        loss, lr, grad_norm: float64; NaN if no finite number was recorded.
        data_s, compute_s: seconds, >= 0.
        synced: True if the times of the step count.
        memory_mb: MiB as measured; NaN if unknown.
        torn: True if an unfinished last line was left out.
        ended: end of each step in seconds since 1970; NaN if not recorded.
        gaps: (first, last) missing step of each gap; only if read leniently.
        repeated: rows left out because a later one has the same step; only if read leniently.
        validation_loss: float64; NaN at steps without one; None if no step has one.
    """

    name: str
    step: Int64
    epoch: Int64
    loss: Float64
    lr: Float64
    grad_norm: Float64
    data_s: Float64
    compute_s: Float64
    synced: Bool
    memory_mb: Float64
    torn: bool
    ended: Float64
    gaps: tuple[tuple[int, int], ...] = ()
    repeated: int = 0
    folder: Path = Path()
    validation_loss: Float64 | None = None

    @property
    def backend(self) -> str:
        """The backend that made the run, or what made the log."""
        return self.name

    @property
    def step_s(self) -> Float64:
        """Seconds of each step, including the wait for data."""
        return self.data_s + self.compute_s

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches per epoch, including a smaller last one; None if the number is not recorded."""
        return None

    @property
    def starts(self) -> list[int]:
        """The steps after which a process started or resumed: 0, and one per resume."""
        return [0]


@dataclass(frozen=True, kw_only=True)
class Run(Series):
    """The records of one run of `diptych train`: steps are consecutive but for `gaps`."""

    config: Config
    environment: dict[str, Any]

    @property
    def backend(self) -> str:
        """The backend that made the run: "torch" or "jittor"."""
        return str(self.environment.get("backend", "unknown"))

    @property
    def steps_per_epoch(self) -> int | None:
        return steps_per_epoch(self.config, self.environment)

    @property
    def starts(self) -> list[int]:
        return starts_of(self.environment)

    @property
    def world(self) -> int:
        """The number of ranks at the last start; runs from before there were ranks had one."""
        return whole(self.environment.get("world"), 1) or 1

    @property
    def own_network(self) -> dict[str, str] | None:
        """The identity of a user's own network: its class, and a hash of its weights' shapes.

        None if Diptych's network was trained; also for a run from before this was recorded.
        """
        found = self.environment.get("network")
        if not isinstance(found, dict):
            return None
        return {key: str(found.get(key)) for key in ("class", "shapes_sha256")}

    def settings(self) -> dict[str, Any]:
        """The settings that determine the losses, by dotted key, without durations and seed."""
        flat = flatten(self.config)
        return {k: v for k, v in flat.items() if k not in self.config.duration_keys and k != "seed"}


def trained_images(environment: dict[str, Any]) -> int | None:
    """Number of images that a run trains on, without the held-out ones; None if not recorded."""
    images = whole(environment.get("dataset_images"), 1)
    split = environment.get("held_out")
    held_out = whole(split.get("images")) if isinstance(split, dict) else 0
    return None if images is None or held_out is None else max(1, images - held_out)


def steps_per_epoch(config: Config, environment: dict[str, Any]) -> int | None:
    """Steps of a run's epoch, the last of which may be smaller; None if not recorded."""
    images = trained_images(environment)
    return None if images is None else -(-images // config.train.batch_size)


def last_step(config: Config, environment: dict[str, Any]) -> int | None:
    """The steps that a run is to have, by its settings and its data; None if not recorded."""
    each = steps_per_epoch(config, environment)
    return config.train.steps if each is None else config.train.last_step(each)


def starts_of(environment: dict[str, Any]) -> list[int]:
    """The steps after which a process started or resumed the run, with 0, without invalid steps."""
    starts = environment.get("starts")
    steps = (
        [s.get("step") for s in starts if isinstance(s, dict)] if isinstance(starts, list) else []
    )
    return sorted({0, *(step for step in map(whole, steps) if step is not None)})


def read_run(folder: Path, *, strict: bool = True) -> Run:
    """Read the records of a run folder.

    Args:
        strict: refuse a missing or repeated step; else note gaps, and use the last of several
            rows with the same step.

    Raises:
        UserError: if it is not a run folder (missing files are named), a file is unreadable or
            broken, a line before the last is broken, there is no step, or `strict` refuses one.
    """
    if not folder.is_dir():
        what = "is a file" if folder.is_file() else "no such folder"
        raise UserError(f"{folder}: {what}; expected a run folder of `diptych train`")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        inside = next(folder.glob("*/environment.json"), None)
        expected = f"give a run in it, such as {inside.parent}" if inside else EXPECTED
        raise UserError(f"{folder}: not a run folder: {', '.join(missing)} missing; {expected}")
    path = folder / "metrics.jsonl"
    rows, torn = _rows(path)
    if not rows:
        raise UserError(f"{path}: no step is recorded; train the run for a step at least")
    total = len(rows)
    if not strict:
        rows = [row for _, row in sorted({row["step"]: row for row in rows}.items())]
    steps = np.array([row["step"] for row in rows], dtype=np.int64)
    epochs = np.array([row["epoch"] for row in rows], dtype=np.int64)
    if strict:
        _check_order(steps, epochs, path)
    validation = np.array([row["validation_loss"] for row in rows], dtype=np.float64)
    return Run(
        validation_loss=validation if np.isfinite(validation).any() else None,
        name=folder.resolve().name,
        config=_config(folder / "config.yaml"),
        environment=_environment(folder / "environment.json"),
        step=steps,
        epoch=epochs,
        synced=np.array([row["synced"] for row in rows], dtype=np.bool_),
        torn=torn,
        ended=np.array([row["ended"] for row in rows], dtype=np.float64),
        gaps=tuple(
            (int(steps[i]) + 1, int(steps[i + 1]) - 1) for i in np.flatnonzero(np.diff(steps) != 1)
        ),
        repeated=total - len(rows),
        folder=folder,
        **{key: np.array([row[key] for row in rows], dtype=np.float64) for key in OPTIONAL},
    )


def _config(path: Path) -> Config:
    try:
        return load_config(str(path))
    except (RecursionError, OverflowError) as error:
        raise UserError(f"{path}: no settings of a run; restore the file") from error


def _environment(path: Path) -> dict[str, Any]:
    found = read_json(path, finite=False)  # a NaN there is shown as it is
    Environment.of(found, str(path))
    return found


def _rows(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows, and True if a torn last line was left out."""
    rows: list[dict[str, Any]] = []
    for line in read_lines(path):
        if line.error and line.last:
            return rows, True
        if line.error:
            raise UserError(
                f"{path}: line {line.number} is not valid JSON; only the last line of a run that "
                "was killed may be torn: restore the file or train again"
            ) from line.error
        rows.append(_checked(line.value, f"{path}: line {line.number}"))
    return rows, False


def _checked(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected a JSON object with step, loss and so on")
    for key, kind, least in (("step", int, 1), ("epoch", int, 0), ("synced", bool, False)):
        value = row.get(key)
        if type(value) is not kind or not least <= value <= MOST:
            expected = "true or false" if kind is bool else f"a whole number from {least}"
            raise UserError(f"{where}: '{key}' is {value!r}; expected {expected}")
    clean = {key: row[key] for key in ("step", "epoch", "synced")}
    for key, optional in OPTIONAL.items():
        clean[key] = _number(row.get(key), optional, f"{where}: '{key}'", key == "loss")
    ended = number(row.get("ended"))
    clean["ended"] = math.nan if ended is None else ended
    validation = number(row.get("validation_loss"))
    clean["validation_loss"] = math.nan if validation is None else validation
    return clean


def _number(value: Any, optional: bool, where: str, signed: bool) -> float:
    if value is None and optional:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{where} is {value!r}; expected a number")
    found = number(value)
    if found is None:
        if optional:
            return math.nan
        raise UserError(f"{where} is not a finite number; expected one")
    if found < 0 and not signed:
        raise UserError(f"{where} is {value!r}; expected 0 or more")
    return found


def _check_order(steps: Int64, epochs: Int64, path: Path) -> None:
    wrong = np.flatnonzero((np.diff(steps) != 1) | (np.diff(epochs) < 0))
    if wrong.size == 0:
        return
    at = int(wrong[0])
    before, after = int(steps[at]), int(steps[at + 1])
    if after > before:
        gap = f"step {before + 1}" if after == before + 2 else f"steps {before + 1} to {after - 1}"
        what = f"{gap} missing"
    elif after == before + 1:
        what = f"step {after} is in epoch {epochs[at + 1]}, the step before in {epochs[at]}"
    elif after in steps[: at + 1]:
        what = f"step {after} recorded twice"
    else:
        what = f"step {after} follows step {before}"
    raise UserError(
        f"{path}: line {at + 2}: {what}; every step must occur once, in order: "
        "restore the file or train again"
    )
