"""Growth of cost, and times of whole commands: `python -m benchmarks.cost`.

One factor changes at a time, the others stay at the base: the network of MNIST, batch 16. A slope
is d log(seconds) / d log(factor): 1 is proportional, below 1 a fixed part is paid with every call.
`all` is the least-squares slope over all values, `last` that of the two largest, where the fixed
part weighs least.

Each panel has a process of its own; one works at a time, and the order is reversed every round.
Noise and dropout masks of a training batch are timed apart, drawn by the host and by the device.
Whole commands are started anew, as a user starts them: one image or step is the start-up, and the
difference to many is what each further one costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import contenders, sizes
from benchmarks.driver import Process, environment, machine
from benchmarks.job import TASKS, Job
from benchmarks.results import median
from diptych import backends
from diptych.config.load import Config, load_config
from diptych.errors import MachineError
from diptych.evaluation.score_table import markdown
from diptych.files import write_json, write_text
from diptych.machine.processor import cores

BATCH, CALLS, NOISY = 16, 4, 64
COUNT = click.IntRange(min=1)


@dataclass(frozen=True)
class Point:
    """One value of a factor, and what is timed there."""

    factor: str
    value: int
    config: Config
    calls: int = CALLS
    turns: int = 1


def base(batch: int = BATCH, side: int = 28, channels: int = 32) -> Config:
    """The network of MNIST, with attention at its lowest level."""
    return load_config(
        "mnist",
        [f"train.batch_size={batch}", f"data.image_size={side}", f"model.ch={channels}",
         "model.ch_mult=[1, 2, 2]", f"model.attn_resolutions=[{side // 4}]"],
    )  # fmt: skip


def points(small: bool) -> list[Point]:
    """All points; `small`: two values of each factor, for a rehearsal."""
    sides, widths = (16, 28, 40, 56), (32, 64, 96, 128)
    few, many = (4, 8, 16, 32, 64), (4, 8, 16, 32)
    cut = slice(2) if small else slice(None)
    return [
        *(Point("images in a call", n, base(batch=n)) for n in few[cut]),
        *(Point("side of an image", n, base(side=n)) for n in sides[cut]),
        *(Point("channels", n, base(channels=n)) for n in widths[cut]),
        *(Point("calls, or steps", n, base(), calls=n) for n in many[cut]),
        *(Point("batches of images", n, base(), turns=n) for n in (1, 2, 4, 8)[cut]),
    ]


@click.command()
@click.option("--rounds", type=COUNT, default=5, show_default=True, help="Rounds of each point.")
@click.option("--images", type=COUNT, default=10_000, show_default=True,
              help="Images of the whole `diptych sample`.")  # fmt: skip
@click.option("--steps", type=COUNT, default=200, show_default=True,
              help="Steps of the whole `diptych train mnist`.")  # fmt: skip
@click.option("--panels", default="torch,jittor", show_default=True)
@click.option("--small", is_flag=True, help="Two values of each factor: a rehearsal.")
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the tables.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write OUT.json and OUT.md.")
def main(
    rounds: int, images: int, steps: int, panels: str, small: bool, as_json: bool, out: Path | None
) -> None:
    """Time every factor in both panels, then whole commands; about an hour on two cores."""
    names = [name.strip() for name in panels.split(",")]
    for name in names:
        if name not in backends.BACKENDS:
            raise click.UsageError(f"--panels: '{name}' is not a panel; torch, jittor or both")
    before = os.getloadavg()[0]
    found: dict[str, Any] = {
        "schema": 1, "machine": machine(), "threads": cores(), "rounds": rounds, "batch": BATCH,
        "load_before": before, "growth": growth(names, points(small), rounds),
        "noise": noise(names, ("tiny",) if small else ("mnist", "cifar10-size")),
        "whole": whole(names, images, steps),
    }  # fmt: skip
    found["load_after"] = os.getloadavg()[0]
    click.echo(json.dumps(found, indent=2) if as_json else text(found))
    if out is not None:
        write_json(out.with_name(out.name + ".json"), found)
        write_text(out.with_name(out.name + ".md"), text(found))


def growth(names: Sequence[str], asked: list[Point], rounds: int) -> list[dict[str, Any]]:
    """A row for each task, panel and factor."""
    seconds: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    with environment(cores()), ExitStack() as stack:
        processes = {}
        for name in names:
            processes[name] = Process(Job(name, TASKS[0], asked[0].config, 1, "cpu"))
            stack.callback(processes[name].close)
        for task in TASKS:
            for point in asked:
                click.echo(f"{task}: {point.factor} {point.value}", err=True)
                each = timed(processes, task, point, rounds)
                for name, values in each.items():
                    row = seconds.setdefault((task, name, point.factor), {})
                    row[point.value] = values
    return [
        {"task": task, "panel": name, "factor": factor, **slopes(values)}
        for (task, name, factor), values in seconds.items()
    ]


def timed(
    processes: dict[str, Process], task: str, point: Point, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every round of each panel, after one that is dropped."""
    found: dict[str, list[float]] = {name: [] for name in processes}
    for name, process in processes.items():
        process.call(contenders.start, Job(name, task, point.config, point.calls, "cpu"))
    for k in range(rounds + 1):
        for name in list(processes)[:: -1 if k % 2 else 1]:
            turns = [
                processes[name].call(contenders.turn, k * point.turns + i).seconds
                for i in range(point.turns)
            ]
            if k:
                found[name].append(sum(turns))
    return found


def slopes(seconds: dict[int, list[float]]) -> dict[str, Any]:
    """Medians with intervals, and the slopes of their logarithms."""
    values = sorted(seconds)
    medians = [median(np.array(seconds[value])) for value in values]
    x, y = np.log(values), np.log([each["median"] for each in medians])
    return {
        "values": values,
        "seconds": medians,
        "all": float(np.polyfit(x, y, 1)[0]),
        "last": float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    }


def noise(names: Sequence[str], presets: Sequence[str], repeats: int = 20) -> list[dict[str, Any]]:
    """Seconds of a training batch of 64 with its noise and masks, by the host and by the device."""
    found = []
    for preset in presets:
        config = sizes.size(preset).config
        for panel in names:
            row: dict[str, Any] = {"panel": panel, "size": preset, "batch": NOISY}
            for kind in ("host", "keyed"):
                train = {"noise": kind, "batch_size": NOISY}
                train = config.train.model_copy(update=train)
                job = Job(panel, TASKS[0], config.model_copy(update={"train": train}), 1, "cpu")
                click.echo(f"noise: {panel}, {preset}, {kind}", err=True)
                with environment(cores()), closing(Process(job)) as process:
                    row[kind] = median(np.array(process.call(contenders.noise, job, repeats)))
            found.append(row)
    return found


def whole(names: Sequence[str], images: int, steps: int) -> list[dict[str, Any]]:
    """Wall seconds of commands of one and of many; `each` is what a further one costs."""
    found = []
    for name in names:
        for what, many in (("sample", images), ("train", steps)):
            one, all_ = (command(name, what, count) for count in (1, many))
            each = (all_ - one) / max(1, many - 1)
            found.append({"panel": name, "command": what, "count": many, "one": one,
                          "many": all_, "each": each})  # fmt: skip
    return found


def command(panel: str, what: str, count: int) -> float:
    """Wall seconds of `diptych sample` of so many images, or `diptych train` of so many steps."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/out", "--backend", panel, "--device", "cpu"]
        words = (
            ["sample", "zoo:mnist-torch", "--num", str(count), *out] if what == "sample" else
            ["train", "mnist", "--set", "data.source=mnist-10k", "--steps", str(count), "--set",
             "train.grid_every=0", "--histograms", "0", *out]
        )  # fmt: skip
        click.echo(f"diptych {what}: {panel}, {count}", err=True)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "diptych", *words], capture_output=True)
        if done.returncode:
            raise MachineError(f"diptych {' '.join(words)}: {done.stderr.decode()[-300:]}")
        return time.perf_counter() - began


def text(found: dict[str, Any]) -> str:
    """The tables, in Markdown."""
    where = found["machine"]
    parts = [
        f"{where['cpu']}, {found['threads']} threads, load {found['load_before']:.1f} before and "
        f"{found['load_after']:.1f} after; base: the network of MNIST, batch {found['batch']}; "
        f"medians of {found['rounds']} rounds.\n"
    ]
    for task in TASKS:
        rows = [
            [row["panel"], row["factor"],
             ", ".join(f"{v}: {s['median']:.3g}"
                       for v, s in zip(row["values"], row["seconds"], strict=True)),
             f"{row['all']:.2f}", f"{row['last']:.2f}"]
            for row in found["growth"] if row["task"] == task
        ]  # fmt: skip
        head = [task, "factor", "seconds at each value", "slope, all", "slope, last"]
        parts.append(markdown(head, rows))
    rows = [
        [f"{row['size']}, {row['panel']}",
         *(f"{1e3 * row[kind]['median']:.1f}" for kind in ("host", "keyed"))]
        for row in found["noise"]
    ]  # fmt: skip
    parts.append(markdown([f"a batch of {NOISY} with its noise, ms", "host", "keyed"], rows))
    rows = [
        [f"{row['command']}, {row['panel']}", f"{row['one']:.1f}", f"{row['count']:,}",
         f"{row['many']:.1f}", f"{1e3 * row['each']:.1f}"]
        for row in found["whole"]
    ]  # fmt: skip
    head = ["whole command", "s for one", "many", "s for many", "ms for each further"]
    parts.append(markdown(head, rows))
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


if __name__ == "__main__":
    main()
