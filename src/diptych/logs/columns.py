"""The meaning of a log's columns, guessed by their names, and set with `--columns`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diptych.errors import UserError, nearest
from diptych.logs.table import TOTAL, Row

ROLES = ("step", "epoch", "loss", "lr", "grad_norm", "step_time", "epoch_time", "time", "memory")
# Names of each role, the likeliest first, in the form of `plain`.
NAMES: dict[str, tuple[str, ...]] = {
    "step": ("step", "global_step", "train_global_step", "trainer_global_step", "train_step",
             "iteration", "iter", "iters", "iterations", "itr", "steps", "n_iter", "batch",
             "batch_idx", "batches", "i", "步", "步数", "迭代", "迭代次数"),
    "epoch": ("epoch", "epochs", "train_epoch", "ep", "轮", "轮次"),
    "lr": ("lr", "learning_rate", "train_lr", "train_learning_rate", "学习率"),
    "grad_norm": ("grad_norm", "gradient_norm", "train_grad_norm", "gnorm", "total_norm"),
    "step_time": ("step_time", "step_s", "time_per_step", "sec_per_step", "seconds_per_step",
                  "step_seconds", "iter_time", "batch_time", "time_step", "s_it", "step_time_s",
                  "step_time_ms", "data_s_compute_s", "compute_s", "单步时间"),
    "epoch_time": ("epoch_time", "time_per_epoch", "epoch_seconds", "epoch_s", "epoch_duration",
                   "epoch_time_s", "train_time"),
    "time": ("ended", "timestamp", "wall_time", "runtime", "elapsed", "elapsed_s", "elapsed_time",
             "relative_time", "datetime"),
    "memory": ("memory_mb", "memory", "mem", "gpu_memory", "gpu_mem", "memory_gb", "mem_mb",
               "max_memory", "peak_memory", "rss_mb", "显存", "内存"),
}  # fmt: skip
# Names that say no more than that something took this long: of a step, or an epoch, by the rows.
PLAIN_TIMES = ("time", "time_s", "duration", "cost", "took", "seconds", "耗时", "用时", "时间")
LOSSES = ("loss", "train_loss", "loss_train", "training_loss", "loss_step", "step_loss",
          "train_loss_step", "batch_loss", "train_step_loss", "损失", "训练损失")  # fmt: skip
# Names of what a network is not trained on, as words of a name, first words of a line, and values
# of a column that says what a row is of.
HELD_OUT = ("val", "vali", "valid", "validation", "validate", "validating", "eval", "evaluation",
            "evaluating", "test", "testing", "dev", "holdout", "heldout", "验证", "验证集", "测试",
            "测试集")  # fmt: skip
SPLITS = ("split", "phase", "mode", "stage", "subset", "partition", "阶段")
OTHERS = (*HELD_OUT, "min", "max", "std", "best", "total_steps")
MB = {"gb": 1024.0, "gib": 1024.0, "mb": 1.0, "mib": 1.0, "kb": 2.0**-10, "bytes": 2.0**-20,
      "b": 2.0**-20}  # fmt: skip
AVERAGED = ("avg", "average", "mean", "running", "epoch", "ema", "smooth", "smoothed")


@dataclass(frozen=True)
class Columns:
    """The column of each role, those that were set, and other columns that could be the loss."""

    of: dict[str, str] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def plain(name: str) -> str:
    """A column's name in lower case, with one `_` between its words."""
    return re.sub(r"[^\w]+|_+", "_", name.lower()).strip("_")


def of_held_out(row: Row) -> Row:
    """A row of validation or test under names that no column of a training has."""
    return {name if "train" in plain(name) else f"val {name}": value for name, value in row.items()}


def is_held_out(cells: Mapping[str, object]) -> bool:
    """True if a cell such as `split` says that its row is of validation or test."""
    return any(
        plain(name.rpartition("/")[2]) in SPLITS
        and isinstance(cell, str)
        and plain(cell).split("_")[0] in HELD_OUT
        for name, cell in cells.items()
    )


def seconds_of(name: str) -> float:
    """The seconds of one unit of a column of times: its name ends in `ms`, or they are seconds."""
    return 1e-3 if plain(name).endswith("ms") else 1.0


def megabytes_of(name: str) -> float | None:
    """The megabytes of one unit of a column of memory; None if its name tells no unit."""
    return MB.get(plain(name).split("_")[-1])


def parse_columns(text: str) -> dict[str, str]:
    """`loss=train/loss,step=global_step` as role -> column.

    Raises:
        UserError: an unknown role, or no column.
    """
    found: dict[str, str] = {}
    for part in re.split(rf",(?=\s*(?:{'|'.join(ROLES)})\s*=)", text):
        role, equals, column = part.partition("=")
        role, column = role.strip(), column.strip().strip("\"'")
        if not equals or not column:
            raise UserError(f"--columns {text}: expected ROLE=COLUMN, such as loss=train/loss")
        if role not in ROLES:
            raise UserError(f"--columns {text}: '{role}' is not a role{nearest(role, list(ROLES))}")
        found[role] = column
    return found


def choose_columns(rows: Sequence[Row], given: Mapping[str, str], where: str) -> Columns:
    """The columns of a table with these rows.

    Only columns beside the loss are taken for a role, but for the time of an epoch.

    Raises:
        UserError: a given column is not there, or no column looks like a loss.
    """
    names = counted(rows)
    for role, column in given.items():
        if column not in names:
            raise UserError(
                f"{where}: has no column '{column}' for {role}{nearest(column, list(names))}"
            )
    chosen = dict(given)
    free = [name for name in names if name not in chosen.values() and not name.endswith(TOTAL)]
    ranked = sorted(
        (rank, -names[name], i, name)
        for i, name in enumerate(free)
        if (rank := loss_rank(name)) is not None
    )
    if "loss" not in chosen:
        if not ranked:
            shown = ", ".join(f"'{name}'" for name in list(names)[:8]) or "none"
            raise UserError(
                f"{where}: no column looks like a loss (columns: {shown}); name it with "
                "--columns loss=COLUMN"
            )
        chosen["loss"] = ranked[0][3]
    others = tuple(name for *_, name in ranked if name != chosen["loss"])[:4]
    beside = counted([row for row in rows if chosen["loss"] in row])
    for role, known in NAMES.items():
        if role in chosen:
            continue
        left = names if role == "epoch_time" else beside
        alike = {plain(n): n for n in reversed(left) if n in free and n not in chosen.values()}
        tails = {p.split("_", 1)[1]: n for p, n in alike.items() if p.startswith("train_")}
        found = next((alike[k] for k in known if k in alike), None)
        found = found or next((tails[k] for k in known if k in tails), None)
        if found is None and role == "memory":
            found = next((n for p, n in alike.items() if {"memory", "mem"} & {*p.split("_")}), None)
        if found is not None:
            chosen[role] = found
    if not {"step_time", "epoch_time"} & {*chosen}:
        times = [n for n in free if plain(n) in PLAIN_TIMES and n not in chosen.values()]
        if times:
            per_step = "step" in chosen and times[0] in beside
            chosen["step_time" if per_step else "epoch_time"] = times[0]
    return Columns(chosen, tuple(given), others)


def add_step_time(rows: Sequence[Row]) -> str:
    """Add the sum of `data_s` and `compute_s`, as Diptych's own records name them, to rows with
    both; return its column, "" if there is none."""
    names = {plain(name): name for row in rows for name in row}
    if not {"data_s", "compute_s"} <= {*names}:
        return ""
    data, compute = names["data_s"], names["compute_s"]
    column = f"{data} + {compute}"
    for row in rows:
        if data in row and compute in row:
            row[column] = row[data] + row[compute]
    return column


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """Every column of rows, and in how many it has a number."""
    found: dict[str, int] = {}
    for row in rows:
        for name in row:
            found[name] = found.get(name, 0) + 1
    return found


def loss_rank(name: str) -> int | None:
    """Rank of a column as the training loss, 0 the likeliest; None if it is none."""
    simple = plain(name)
    words = simple.split("_")
    if {*words} & {*OTHERS} or "验证" in simple or "测试" in simple:
        return None
    if simple in LOSSES:
        return 0 if simple == "loss" else 1
    if "loss" in words or "损失" in simple:
        return 3 if {*words} & {*AVERAGED} else 2
    return 4 if simple in ("mse", "nll", "train_mse") else None
