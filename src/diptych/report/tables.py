"""The tables of a comparison's page, from the content of compare.json."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diptych.figures.numbers import seconds, significant
from diptych.report.wording import steps_listed

Content = Mapping[str, Any]
NONE = "\N{EN DASH}"
TIMES = (
    ("median", "median", seconds),
    ("95th percentile", "p95", seconds),
    ("99th percentile", "p99", seconds),
    ("longest", "max", seconds),
    ("longest at step", "max_step", lambda x: f"{x:,}"),
    ("mean", "mean", seconds),
    ("share of waiting for data", "data_share", lambda x: f"{significant(100 * x)} %"),
    ("synchronised steps", "synced_steps", lambda x: f"{x:,}"),
)
LOSSES = (
    ("first step", "first", lambda x: significant(x, 4)),
    ("last step", "last", lambda x: significant(x, 4)),
    ("5th percentile", "p5", lambda x: significant(x, 4)),
    ("median", "median", lambda x: significant(x, 4)),
    ("95th percentile", "p95", lambda x: significant(x, 4)),
    ("mean of the last tenth", "last_tenth_mean", lambda x: significant(x, 4)),
)
MEMORY = (
    ("at the first step", "first", lambda x: f"{x:,.1f} MB"),
    ("at the last step", "last", lambda x: f"{x:,.1f} MB"),
    ("peak", "peak", lambda x: f"{x:,.1f} MB"),
    ("peak at step", "peak_step", lambda x: f"{x:,}"),
    ("slope per 1,000 steps", "slope_per_1000_steps", lambda x: f"{significant(x, 3)} MB"),
)
Rows = tuple[tuple[str, str, Callable[[Any], str]], ...]


@dataclass(frozen=True)
class Table:
    """A table of texts; a `long` one is folded away."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    long: bool = False


def tables(result: Content, section: str) -> Iterator[Table]:
    """The tables of one section of the page, those without a row left out."""
    names = [result["runs"][run]["label"] for run in "ab"]
    make = {
        "runs": _runs,
        "loss": lambda r, n: [_pair("Losses", n, LOSSES, r["numbers"]["loss"])],
        "difference": _difference,
        "time": _time,
        "memory": lambda r, n: [_pair("Memory", n, MEMORY, r["numbers"]["memory"])],
        "samples": _samples,
    }.get(section, lambda r, n: [])
    return (table for table in make(result, names) if table.rows)


def _pair(caption: str, names: list[str], rows: Rows, numbers: Content) -> Table:
    def cell(run: str, key: str, show: Callable[[Any], str]) -> str:
        value = (numbers[run] or {}).get(key)
        return NONE if value is None else show(value)

    body = [[title, *(cell(run, key, show) for run in "ab")] for title, key, show in rows]
    return Table(caption, ["", *names], body)


def text(value: Any) -> str:
    """A recorded value as it stands in a table."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _runs(result: Content, names: list[str]) -> list[Table]:
    runs = result["runs"]
    titles = {
        "name": "run folder",
        "backend": "backend",
        "framework_version": "framework version",
        "device": "device",
        "cpu": "processor",
        "threads": "threads",
        "python": "Python",
        "numpy": "NumPy",
        "seed": "seed",
        "steps": "steps",
    }
    rows = [[title, *(text(runs[run][key]) for run in "ab")] for key, title in titles.items()]
    for key, title in (("config_sha256", "settings, sha256"), ("dataset_sha256", "data, sha256")):
        rows.append([title, *(text(runs[run][key])[:12] for run in "ab")])
    found = [Table("What ran, and where", ["", *names], rows)]
    for key, caption in (
        ("config", "Settings that differ"),
        ("environment", "Environments: what differs"),
    ):
        rows = [[d["key"], text(d["a"]), text(d["b"])] for d in result[f"{key}_differences"]]
        found.append(Table(caption, ["key", *names], rows))
    return found


def _difference(result: Content, names: list[str]) -> list[Table]:
    difference = result["numbers"]["difference"]
    if not difference:
        return []
    above = (difference["loss"] or {"above": []})["above"]
    rows = [
        [
            f"{row['limit']:.0e}".replace("e-0", "e-"),
            f"{row['steps']:,}",
            f"{row['first']:,}" if row["first"] else NONE,
        ]
        for row in above
    ]
    every = [
        [f"{row['step']:,}", *(NONE if row[run] is None else f"{row[run]:.8g}" for run in "ab"),
         NONE if row["relative"] is None else significant(row["relative"])]
        for row in difference["every_200"]
    ]  # fmt: skip
    return [
        Table(
            "How many losses differ by more", ["relative difference above", "steps", "first"], rows
        ),
        Table(
            "Loss of every 200th step", ["step", *names, "relative difference"], every, long=True
        ),
    ]


def _time(result: Content, names: list[str]) -> list[Table]:
    times, epochs = result["numbers"]["step_time"], result["numbers"]["epoch_time"]
    table = _pair("Time per step", names, TIMES, times)
    slow = ["slow steps", *(_slow(times[run]) for run in "ab")]
    both = {run: {row["epoch"]: row["seconds"] for row in epochs[run]["complete"]} for run in "ab"}
    rows = [
        [
            str(epoch + 1),
            *(seconds(both[run][epoch]) if epoch in both[run] else NONE for run in "ab"),
        ]
        for epoch in sorted({*both["a"], *both["b"]})
    ]
    return [
        Table(table.caption, table.head, [*table.rows, slow]),
        Table("Time per complete epoch", ["epoch", *names], rows, long=len(rows) > 12),
    ]


def _slow(numbers: Content | None) -> str:
    steps = numbers["outliers"]["steps"] if numbers else None
    if steps is None:
        return NONE
    return f"{len(steps)} ({steps_listed(steps)})" if steps else "0"


def _samples(result: Content, names: list[str]) -> list[Table]:
    samples = result["numbers"]["samples"]
    if not samples:
        return []
    keys = ("folder", "images", "solver", "steps", "eta", "spacing", "sigma_type", "clip", "seed",
            "weights", "network_calls", "seconds_per_image")  # fmt: skip
    rows = [[key.replace("_", " "), *(text(samples[run][key]) for run in "ab")] for key in keys]
    return [Table("How the images were sampled", ["", *names], rows)]
