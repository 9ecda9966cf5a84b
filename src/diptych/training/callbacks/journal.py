"""A run's journal: one JSON line a step, and the same scalars as TensorBoard events.

Losses come from the device late: rows wait until `flush`, which reads their scalars at once, so
that logging does not stall the device at every step. A row is written only if its loss and
gradient norm are finite.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from diptych.errors import UserError
from diptych.figures.grids import to_picture
from diptych.files import machine_faults, parse_json, write_text
from diptych.runs import checkpoint
from diptych.types import Pixels

SCALARS = ("loss", "grad_norm", "lr", "compute_s", "data_s", "memory_mb")


class Journal:
    """Writes `metrics.jsonl` and `tensorboard/` of one run, from `step` on."""

    def __init__(self, run: Path, step: int, scalar: Callable[[Any], float]) -> None:
        self.run, self.scalar = run, scalar
        self.path = run / "metrics.jsonl"
        self.waiting: list[dict[str, Any]] = []
        self.followers: list[Callable[[list[dict[str, Any]]], None]] = []  # of rows written
        self.last_loss = _cut(self.path, step)
        with machine_faults(f"writing {self.path}"):
            self.events = EventFileWriter(str(run / "tensorboard"))
        # Tells TensorBoard to forget what an interrupted start wrote from here on.
        start = SessionLog(status=SessionLog.START)
        self.events.add_event(Event(step=step + 1, wall_time=time.time(), session_log=start))

    def add(self, row: dict[str, Any]) -> None:
        """Note one step; `loss` and `grad_norm` may be device scalars."""
        self.waiting.append(row)

    def flush(self) -> None:
        """Read the waiting scalars and write their rows.

        Raises:
            UserError: a loss or gradient norm is not finite; the rows before it are written.
        """
        rows, self.waiting = self.waiting, []
        good: list[dict[str, Any]] = []
        bad = ""
        for row in rows:
            row["loss"], row["grad_norm"] = self.scalar(row["loss"]), self.scalar(row["grad_norm"])
            faults = [key for key in ("loss", "grad_norm") if not math.isfinite(row[key])]
            if faults:
                bad = f"step {row['step']}: {faults[0]} is {row[faults[0]]}"
                break
            good.append(row)
        self._write(good)
        if bad:
            kept = checkpoint.all_checkpoints(self.run)
            last = (
                f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made yet"
            )
            raise UserError(f"{bad}; training stopped, {last}; try a lower train.lr")

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        self.last_loss = rows[-1]["loss"]
        with machine_faults(f"writing {self.path}"), self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
        for row in rows:
            values = [Summary.Value(tag=f"train/{key}", simple_value=row[key]) for key in SCALARS]
            self.event(row["step"], values)
        self.events.flush()
        for follow in self.followers:
            follow(rows)

    def event(self, step: int, values: list[Any]) -> None:
        """Summaries of `callbacks.tracking` or our own for TensorBoard, at a step."""
        summary = Summary(value=values)
        self.events.add_event(Event(step=step, wall_time=time.time(), summary=summary))

    def image(self, name: str, picture: Pixels, step: int) -> None:
        """One picture (C, H, W) for TensorBoard."""
        channels, height, width = picture.shape
        encoded = io.BytesIO()
        to_picture(picture).save(encoded, format="PNG")
        image = Summary.Image(
            height=height,
            width=width,
            colorspace=channels,
            encoded_image_string=encoded.getvalue(),
        )
        self.event(step, [Summary.Value(tag=name, image=image)])

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.events.close()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a journal; a torn last line, left by a crash, is dropped."""
    if not path.exists():
        return []
    rows = []
    lines = path.read_text("utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            if line:
                row = parse_json(line, finite=False)
                rows.append({**row, "step": int(row["step"]), "loss": float(row["loss"])})
        except (KeyError, TypeError, ValueError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: not a row of a journal") from error
    return rows


def _cut(path: Path, step: int) -> float:
    """Drop the rows after `step`, which will be made again; gives the last loss that is left."""
    rows = [row for row in read_rows(path) if row["step"] <= step]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return float(rows[-1]["loss"]) if rows else math.nan
