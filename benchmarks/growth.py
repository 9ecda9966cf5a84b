"""Growth with the number of ranks, on this machine's cores: `python -m benchmarks.growth`.

    efficiency = seconds of 1 rank on 1 thread / (ranks * threads * seconds of the case)
               = work * busy / (busy of 1 rank on 1 thread)
    work       = CPU seconds of 1 rank on 1 thread / CPU seconds of all ranks
    busy       = CPU seconds of all ranks / (ranks * threads * seconds of the case)

The same work in every case: the same global batch in training, the same images in sampling. `work`
is below 1 if processes do work twice or slow one another down, `busy` if cores wait; on a quiet
machine one rank on one thread is busy to nearly 100%. Every rank is a process of its own, started
for each round; the order of the cases is reversed each round. `--docs` writes the record's tables,
and the model on paper (`benchmarks.growth_model`), into docs/cluster.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import growth_model as paper
from benchmarks.driver import machine
from benchmarks.growth_rank import PARTS
from benchmarks.ports import free_port
from benchmarks.results import median
from benchmarks.sizes import _SIZES as SIZES
from benchmarks.sizes import NAMES
from diptych.errors import MachineError
from diptych.evaluation.score_table import markdown
from diptych.files import read_json, write_json
from diptych.pages.blocks import write_block

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "growth.json"
GPU = ROOT / "benchmarks" / "results" / "gpu-h200.json"
PAGE = ROOT / "docs" / "cluster.md"
CASES = ((1, 1), (1, 2), (2, 1))  # ranks, threads of each
COUNT = click.IntRange(min=1)
LIMIT = 1800  # seconds of one case


@click.command()
@click.option("--preset", default="mnist", show_default=True, help=f"Size: {', '.join(NAMES)}.")
@click.option("--rounds", type=COUNT, default=6, show_default=True)
@click.option("--steps", type=COUNT, default=8, show_default=True, help="Training steps a round.")
@click.option("--batch", type=COUNT, default=64, show_default=True, help="Global batch.")
@click.option("--noise", default="keyed", show_default=True, help="train.noise: host or keyed.")
@click.option("--batches", type=COUNT, default=8, show_default=True, help="Of images sampled.")
@click.option("--calls", type=COUNT, default=10, show_default=True, help="Network calls an image.")
@click.option("--wire", "worlds", default="2,4,8", show_default=True, help="Ranks that sum.")
@click.option("--reps", type=COUNT, default=30, show_default=True, help="Sums of each size.")
@click.option("--many", type=int, default=64, show_default=True,
              help="Real ranks whose losses are compared with one's; 0: none.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout instead of the tables.")
@click.option("--out", type=click.Path(path_type=Path), help="Also write OUT.json.")
@click.option(
    "--docs", is_flag=True, help="Write docs/cluster.md from the record; measure nothing."
)
def main(
    preset: str, rounds: int, steps: int, batch: int, noise: str, batches: int, calls: int,
    worlds: str, reps: int, many: int, as_json: bool, out: Path | None, docs: bool,
) -> None:  # fmt: skip
    """Time 1 and 2 ranks on two cores; count the bytes on the wire; compare many ranks with one."""
    if docs:
        write_block(PAGE, "growth", block(record()))
        return
    if preset not in SIZES:
        raise click.UsageError(f"--preset {preset}: expected one of {', '.join(NAMES)}")
    base, changes = SIZES[preset][:2]
    train = {"task": "training", "size": preset, "preset": base, "changes": list(changes),
             "noise": noise, "images": 10_000, "batch": batch, "steps": steps,
             "warmup": 2}  # fmt: skip
    draw = {"task": "sampling", "steps": calls, "batch": batch, "batches": batches}
    load_before = os.getloadavg()[0]
    found: dict[str, Any] = {
        "schema": 1, "size": preset, "rounds": rounds, "steps": steps, "batch": batch,
        "noise": noise, "batches": batches, "calls": calls, "machine": machine(),
        "training": measured(train, rounds), "sampling": measured(draw, rounds),
        "load_before": load_before,
    }  # fmt: skip
    parameters = found["training"]["1x1"]["parameters"]
    summed = {"task": "wire", "elements": [1, parameters // 8, parameters], "reps": reps}
    found["wire"] = {w: ranks(int(w), 1, summed)[0] for w in worlds.split(",")}
    found["load_after"] = os.getloadavg()[0]

    def keep() -> None:
        if out is not None:
            write_json(out.with_name(out.name.removesuffix(".json") + ".json"), found)

    keep()  # before the piece that needs most memory
    if many:
        found["many"] = compared(many)
        keep()
    click.echo(json.dumps(found, indent=2) if as_json else text(found))


def ranks(world: int, threads: int, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the ranks of a case side by side; the answer of each."""
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
              "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "benchmarks.growth_rank",
        json.dumps(asked | {"threads": threads}),
    ]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **shared, "RANK": str(k), "LOCAL_RANK": str(k)},
            stdout=subprocess.PIPE, text=True,
        )
        for k in range(world)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=LIMIT)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    if any(codes):
        raise MachineError(f"{asked['task']} with {world} ranks: exit codes {codes}")
    return [json.loads(lines.splitlines()[-1]) for lines in said]


def measured(asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Medians over rounds of every case, by `RANKSxTHREADS`, and the efficiency with its causes."""
    found: dict[tuple[int, int], list[list[dict[str, Any]]]] = {case: [] for case in CASES}
    for k in range(rounds):
        for case in CASES[:: -1 if k % 2 else 1]:
            found[case].append(ranks(*case, asked))
            click.echo(f"{asked['task']}, round {k + 1} of {rounds}: {case}", err=True)
    seconds = {case: np.array([max(r["seconds"] for r in one) for one in each])
               for case, each in found.items()}  # fmt: skip
    cpu = {case: np.array([sum(r["cpu_seconds"] for r in one) for one in each])
           for case, each in found.items()}  # fmt: skip
    one = CASES[0]
    table = {}
    for case, each in found.items():
        cores = case[0] * case[1]
        row: dict[str, Any] = {
            "ranks": case[0], "threads": case[1],
            "seconds": median(seconds[case]),
            "speedup": median(seconds[one] / seconds[case]),
            "efficiency": median(seconds[one] / seconds[case] / cores),
            "work": float(np.median(cpu[one] / cpu[case])),
            "busy": float(np.median(cpu[case] / seconds[case] / cores)),
            "busy_alone": float(np.median(cpu[one] / seconds[one])),
            "peak_mb": max(r["peak_mb"] for one_round in each for r in one_round),
        }  # fmt: skip
        if asked["task"] == "training":
            row["parameters"] = each[0][0]["parameters"]
            row["parts"] = {
                part: float(np.median([np.mean([r["parts"][part] for r in o]) for o in each]))
                for part in PARTS
            }
            row["losses_apart"] = apart(each[0][0]["losses"], found[one][0][0]["losses"])
        table[f"{case[0]}x{case[1]}"] = row
    return table


def apart(losses: list[float], others: list[float]) -> float:
    """The largest relative difference of losses."""
    return float(np.abs(np.array(losses) / np.array(others) - 1).max())


def compared(world: int) -> dict[str, Any]:
    """Losses of many real ranks against those of one: batches of 70 and of 31 rows."""
    small = ["data.image_size=7", "model.ch=8", "model.norm_groups=4", "model.ch_mult=[1]",
             "model.num_res_blocks=1", "model.attn_resolutions=[]", "model.dropout=0.2",
             "data.random_flip=true"]  # fmt: skip
    asked = {"task": "training", "size": "tiny", "preset": "tiny", "changes": small, "images": 101,
             "noise": "host", "batch": 70, "steps": 4, "warmup": 0}  # fmt: skip
    [alone], many = ranks(1, 1, asked), ranks(world, 1, asked)
    losses = [each["losses"] for each in many]
    return {
        "ranks": world, "losses": losses[0], "alone": alone["losses"],
        "apart": apart(losses[0], alone["losses"]),
        "ranks_alike": all(each == losses[0] for each in losses),
    }  # fmt: skip


def record() -> dict[str, Any] | None:
    """The stored measurement; None before the first."""
    return read_json(RECORD) if RECORD.is_file() else None


def text(found: dict[str, Any]) -> str:
    """The tables of a measurement, in Markdown."""
    parts = []
    for task, what in (("training", "a step"), ("sampling", "all images")):
        rows, steps = [], found["steps"] if task == "training" else 1
        for row in found[task].values():
            ends = row["efficiency"]
            interval = "" if ends["low"] is None else f" ({ends['low']:.0%} to {ends['high']:.0%})"
            rows.append([
                f"{row['ranks']} x {row['threads']}", f"{row['seconds']['median'] / steps:.3f}",
                f"{row['speedup']['median']:.2f}", f"{ends['median']:.0%}{interval}",
                f"{row['work']:.0%}", f"{row['busy']:.0%}", f"{row['peak_mb']:.0f}",
            ])  # fmt: skip
        head = [f"{task}: ranks x threads", f"s {what}", "speedup", "efficiency", "work", "busy",
                "MB a rank"]  # fmt: skip
        parts.append(markdown(head, rows))
    rows = [[name, *(f"{1e3 * row['parts'][part]:.1f}" for part in PARTS)]
            for name, row in found["training"].items()]  # fmt: skip
    parts.append(markdown(["ms of a step", *PARTS], rows))
    rows = [[str(r["ranks"]), f"{r['elements']:,}", f"{r['bytes']:,.0f}", f"{r['formula']:,.0f}",
             f"{1e3 * r['seconds']:.2f}",
             "fitted" if r["fitted"] else f"{1e3 * r['predicted']:.2f}"]
            for r in paper.checked(found["wire"])]  # fmt: skip
    head = ["ranks", "numbers summed", "bytes on the wire", "formula", "ms", "ms predicted"]
    parts.append(markdown(head, rows))
    if "many" in found:
        many = found["many"]
        alike = "all alike" if many["ranks_alike"] else "not alike"
        parts.append(f"{many['ranks']} real ranks on these cores: losses of four steps within "
                     f"{many['apart']:.1e} of one process's, {alike}.\n")  # fmt: skip
    return "\n".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def block(found: dict[str, Any] | None) -> str:
    """Text of docs/cluster.md on growth: measured, and on paper."""
    if found is None:
        said = ("Growth on two cores was not measured yet: `python -m benchmarks.growth --out "
                "benchmarks/results/growth`.\n")  # fmt: skip
    else:
        where = found["machine"]
        said = (
            f"Measured: {where['cpu']}, {where['cores']} cores, load {found['load_before']:.1f} "
            f"before and {found['load_after']:.1f} after; size {found['size']}, batch "
            f"{found['batch']}, noise {found['noise']}; medians of {found['rounds']} rounds "
            f"(`python -m benchmarks.growth`). Efficiency against 1 rank of 1 thread = work x "
            f"busy / its busy: `work` is its processor time divided by that of all ranks, `busy` "
            f"the share of the cores' time that is used.\n\n{text(found)}"
        )
    hop, known = paper.host_hop(found)
    steps = paper.step_times(read_json(GPU))
    rows = [[
        row["place"], str(row["gpus"]), f"{row['bytes'] / 1e6:.0f}", f"{1e3 * row['sums']:.2f}",
        f"{1e3 * row['agreement']:.2f}", *(f"{row['efficiency'][name]:.0%}" for name in steps),
        *(f"{row['sums_alone'][name]:.0%}" for name in steps),
    ] for row in paper.model(steps, hop)]  # fmt: skip
    head = ["on paper", "GPUs", "MB a step and GPU", "ms sums", "ms agreement",
            *(f"efficiency {name}" for name in steps),
            *(f"{name}, without agreement" for name in steps)]  # fmt: skip
    ms = ", ".join(f"{name} {1e3 * one:.1f}" for name, one in steps.items())
    sources = "; ".join(f"{place.name}: {place.source}" for place in paper.PLACES)
    return (
        f"{said}\nA model, not a measurement: the CIFAR-10 network ({paper.PARAMETERS:,} "
        f"parameters), {paper.BATCH} images on each GPU, step times of one H200 (ms: {ms}; "
        f"benchmarks/results/gpu-h200.json; an H100's memory is slower). Each rank sends "
        f"2 (w - 1) / w x 4 bytes x parameters in one ring, at the link's stated bandwidth; a "
        f"message takes {1e6 * paper.GPU_HOP:.0f} us inside a machine and "
        f"{1e6 * paper.NETWORK_HOP:.0f} us between machines (assumed), and one between hosts "
        f"{1e6 * hop:.0f} us ({'measured here' if known else 'assumed'}). Nothing overlaps. "
        f"Bandwidths: {sources}.\n\n{markdown(head, rows).rstrip()}\n"
    )


if __name__ == "__main__":
    main()
