"""A run's numbers as the files that reproductions hand in: loss_step.txt and metrics.csv.

    loss_step.txt   `epoch: 1, step: 1, loss: 0.977211`, one line a step, counted from 1
    metrics.csv     every number of every step, with a header

Losses have 9 significant digits, from which a float32 can be restored exactly.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

from diptych.errors import UserError
from diptych.files import check_free, new_folder, write_text
from diptych.runs.reader import Run, read_run

NAMES = ("loss_step.txt", "metrics.csv")
COLUMNS = ("step", "epoch", "loss", "lr", "grad_norm", "data_s", "compute_s", "step_s",
           "synced", "memory_mb", "ended")  # fmt: skip


def export(run: Path, out: Path | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write a run's loss_step.txt and metrics.csv.

    Args:
        run: a run folder; gaps and repeated rows are told, the last of repeated rows is written.
        out: a folder of their own, whole or not at all; None: in the run folder, where they are
            replaced.
        overwrite: replace earlier ones in `out`.

    Returns:
        `files`, `steps`, `gaps`, `repeated`, `torn`.

    Raises:
        UserError: not a run folder, or `out` holds other files.
    """
    found = read_run(run, strict=False)
    texts = dict(zip(NAMES, (loss_steps(found), metrics(found)), strict=True))
    if out is None or (out.exists() and out.samefile(run)):
        home = run
        for name, text in texts.items():
            write_text(run / name, text)
    else:
        home = out
        if (out / "config.yaml").exists():
            raise UserError(f"{out}: is a run folder; give another --out")
        check_free(out, overwrite, lambda name: name in NAMES)
        with new_folder(out) as build:
            for name, text in texts.items():
                write_text(build / name, text)
    return {
        "files": [str(home / name) for name in NAMES],
        "steps": int(found.step.size),
        "gaps": [list(gap) for gap in found.gaps],
        "repeated": found.repeated,
        "torn": found.torn,
    }


def loss_steps(run: Run) -> str:
    """The text of loss_step.txt; epochs count from 1."""
    rows = zip(run.epoch.tolist(), run.step.tolist(), run.loss.tolist(), strict=True)
    return "".join(f"epoch: {e + 1}, step: {s}, loss: {_number(x) or 'nan'}\n" for e, s, x in rows)


def metrics(run: Run) -> str:
    """The text of metrics.csv; an unknown number is an empty cell, a loss that is none is nan."""
    names = [*COLUMNS, *([] if run.validation_loss is None else ["validation_loss"])]
    columns = [getattr(run, name).tolist() for name in names]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for cells in zip(*columns, strict=True):
        row = [_number(cell) for cell in cells]
        row[2] = row[2] or "nan"
        writer.writerow(row)
    return text.getvalue()


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return ""
    return f"{value:.6f}" if abs(value) > 1e8 else f"{value:.9g}"  # seconds since 1970
