"""The numbers of a log, and of two logs side by side."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np

from diptych.logs import Log
from diptych.report.numbers import costs, losses
from diptych.report.numbers.pair import Numbers, PairNumbers, RunNumbers, differences
from diptych.runs.reader import Run

# Settings that change the work of a step.
WORK = ("batch_size", "train_batch_size", "num_gpus", "world_size")


class LogNumbers(RunNumbers):
    """One log, its label and its own numbers."""

    def __init__(self, log: Log, label: str) -> None:
        # A log has all of a run but its settings and its environment, which no chapter of a log's
        # page reads: asking for them raises.
        super().__init__(cast(Run, log), label)
        self.log = log

    @cached_property
    def epoch_time(self) -> Numbers:
        """Seconds of epochs: of a column, else the sums over epochs whose every step is timed."""
        log = self.log
        if log.epoch_seconds:
            rows = [
                {"epoch": epoch - 1, "steps": None, "seconds": seconds}
                for epoch, seconds in sorted(log.epoch_seconds.items())
            ]
        elif log.epochs_known and log.stride == 1 and log.synced.any():
            rows = [row for row in costs.epoch_time(log)["complete"] if np.isfinite(row["seconds"])]
        else:
            rows = []
        median = float(np.median([row["seconds"] for row in rows])) if rows else None
        size = int(log.step.size)
        return {"complete": rows, "median": median, "steps": size, "unsynced_steps": 0}

    def identity(self) -> Numbers:
        """The log's file, columns and steps, and what was assumed."""
        log = self.log
        return {
            "label": self.label,
            "file": str(log.path),
            "format": log.format,
            "columns": dict(log.columns.of),
            "columns_given": list(log.columns.given),
            "settings": dict(log.settings),
            "rows": log.rows,
            "rows_without_loss": log.without_loss,
            "first_step": int(log.step[0]),
            "last_step": int(log.step[-1]),
            "steps": int(log.step.size),
            "stride": log.stride,
            "gaps": [list(gap) for gap in log.gaps],
            "missing_rows": log.missing,
            "repeated_rows": log.repeated,
            "restarts": list(log.restarts),
            "torn_last_line": log.torn,
            "assumed": [{"what": key, **numbers} for key, numbers in log.facts],
        }

    def times(self) -> Numbers | None:
        """The step times."""
        return self.step_time


class LogPair(PairNumbers):
    """Two logs; their losses are set side by side, but nothing says that they share their draws."""

    @property
    def logs(self) -> tuple[Log, Log]:
        """A's and B's log."""
        return cast(Log, self.a.run), cast(Log, self.b.run)

    @cached_property
    def difference(self) -> Numbers | None:
        """The step-by-step differences over the common steps; None if there are none."""
        return losses.step_differences(self.a.run, self.b.run)

    @cached_property
    def together(self) -> Numbers | None:
        """Not recorded in a log."""
        return None

    @cached_property
    def config_differences(self) -> list[Numbers]:
        """Settings that both logs tell, and that differ."""
        a, b = (log.settings for log in self.logs)
        shared = [key for key in a if key in b]
        return differences({k: a[k] for k in shared}, {k: b[k] for k in shared})

    @cached_property
    def environment_differences(self) -> list[Numbers]:
        """Not recorded in a log."""
        return []

    @property
    def work_differences(self) -> list[str]:
        return [d["key"] for d in self.config_differences if d["key"] in WORK]

    @property
    def dataset_equal(self) -> bool | None:
        """Not recorded in a log."""
        return None

    @cached_property
    def lr_differs(self) -> int | None:
        """The first common step at which the learning rates differ; None if none or unknown."""
        common = losses.common_steps(self.a.run, self.b.run)
        if common is None:
            return None
        a, b = self.a.run.lr[common[0]], self.b.run.lr[common[1]]
        apart = np.flatnonzero(losses.relative_difference(a, b) > 1e-3)
        return int(self.a.run.step[common[0]][apart[0]]) if apart.size else None

    def content(self) -> dict[str, Any]:
        return super().content() | {"kind": "diptych logs", "lr_differs_from": self.lr_differs}
