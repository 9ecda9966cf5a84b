"""Rows of a run on their way from the device to the callbacks.

Losses arrive late from the device: rows wait until `flush`, which reads all their scalars, so
that logging does not stall the device at every step. A row is only passed on if its loss and
gradient norm are finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diptych.errors import StopTraining, UserError
from diptych.runs import checkpoint
from diptych.training.callbacks import Callback, Row


class Rows:
    """Rows that wait for their device scalars to be read.

    Args:
        run: the run folder; an error names its last good checkpoint.
        scalar: reads a device scalar, and waits for it.
        callbacks: receives the rows.
        written: waits for a checkpoint that is being written.
    """

    def __init__(
        self,
        run: Path,
        scalar: Callable[[Any], float],
        callbacks: Callback,
        written: Callable[[], None],
    ) -> None:
        self.run, self.scalar, self.callbacks, self.written = run, scalar, callbacks, written
        self.waiting: list[Row] = []

    def add(self, row: Row) -> None:
        """Add the row of one step; `loss` and `grad_norm` may be device scalars."""
        self.waiting.append(row)

    def flush(self) -> None:
        """Read the waiting scalars and pass the rows on.

        Raises:
            UserError: a loss or gradient norm is not finite; the rows before it are passed on.
            StopTraining: a callback asked for it, and all rows are finite.
        """
        rows, self.waiting = self.waiting, []
        good: list[Row] = []
        bad = ""
        for row in rows:
            row["loss"], row["grad_norm"] = self.scalar(row["loss"]), self.scalar(row["grad_norm"])
            faults = [key for key in ("loss", "grad_norm") if not math.isfinite(row[key])]
            if faults:
                bad = f"step {row['step']}: {faults[0]} is {row[faults[0]]}"
                break
            good.append(row)
        stop = None
        try:
            if good:
                self.callbacks.rows(good)
        except StopTraining as error:
            stop = error
        if bad:
            self.written()
            kept = checkpoint.all_checkpoints(self.run)
            last = (
                f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was made yet"
            )
            raise UserError(f"{bad}; training stopped, {last}; try a lower train.lr")
        if stop is not None:
            raise stop
