"""One piece after the other on a GPU, or in a rehearsal on a CPU.

    python -m benchmarks.gpu --out FOLDER [--budget 400] [--only REGEX] [--cpu] [--list]
    python -m benchmarks.gpu --table benchmarks/results/gpu-h200.json

Every result is in FOLDER/results.json at once; pieces that are there are skipped, so a run that was
cut off, or ended by a broken device, goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu import checks, sampling, training
from benchmarks.gpu.common import Place, Result

PIECES = {**checks.PIECES, **training.PIECES, **sampling.PIECES}
BROKEN = 3  # exit code: the device is lost to this process


def main() -> int:
    """Run the pieces that fit in the budget; BROKEN if a new process has to go on."""
    ask = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    ask.add_argument("--out", type=Path, help="folder of results.json")
    ask.add_argument("--table", type=Path, help="show the speeds of these results, and end")
    ask.add_argument("--budget", type=float, default=400, help="seconds since $BENCH_BEGAN")
    ask.add_argument("--only", default="", help="pieces whose name matches")
    ask.add_argument("--warm", action="store_true", help="run, but keep nothing: fills caches")
    ask.add_argument("--cpu", action="store_true", help="a rehearsal, small and on a CPU")
    ask.add_argument("--list", action="store_true")
    asked = ask.parse_args()
    if asked.list:
        print("\n".join(PIECES))
        return 0
    if asked.table:
        try:
            print(table(json.loads(asked.table.read_text())["results"]))
        except (OSError, ValueError, KeyError) as error:
            ask.error(f"--table {asked.table}: no record of results ({error})")
        return 0
    if asked.out is None:
        ask.error("--out FOLDER is missing")
    if not asked.cpu and not torch.cuda.is_available():
        ask.error("PyTorch finds no CUDA GPU here; --cpu rehearses")
    began = float(os.environ.get("BENCH_BEGAN", time.time()))
    try:
        chosen = {name: piece for name, piece in PIECES.items() if re.search(asked.only, name)}
    except re.error as error:
        ask.error(f"--only {asked.only}: no regular expression ({error})")
    if not chosen:
        ask.error(f"--only {asked.only}: no piece has such a name; --list shows them")
    place, path = Place("cpu" if asked.cpu else "cuda"), asked.out / "results.json"
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, piece in chosen.items():
        found = json.loads(path.read_text()) if path.is_file() else {}
        if name in found and not asked.warm:
            continue
        if time.time() - began > asked.budget:
            print(f"no time left before: {name}")
            return 0
        if not asked.warm:
            keep(path, found | {name: {"failed": "ended the process"}})
        result = run(piece, place)
        if not asked.warm:
            keep(path, found | {name: result})
        print(line(name, result), flush=True)
        if "CUDA error" in result.get("failed", ""):
            return BROKEN
    return 0


def run(piece: Callable[[Place], Result], place: Place) -> Result:
    """The piece's result, or how it failed."""
    began = time.perf_counter()
    try:
        found: Result = piece(place)
    except Exception as error:
        found = {"failed": repr(error)[:600], "trace": traceback.format_exc()[-1500:]}
    return found | {"piece_s": time.perf_counter() - began}


def keep(path: Path, found: Result) -> None:
    """Write the results in one move."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(found, indent=1, default=float))
    new.replace(path)


def table(found: Result) -> str:
    """The pieces that have a speed, as a Markdown table."""
    rows = [
        "| piece | images/s | ms (10 to 90 %) | first call, s | memory, MB |",
        "|---|---|---|---|---|",
    ]
    for name, each in found.items():
        if "img_per_s" in each:
            low, middle, high = (1e3 * each[key] for key in ("p10_s", "p50_s", "p90_s"))
            rows.append(
                f"| {name} | {each['img_per_s']:,.0f} | {middle:.1f} ({low:.1f} to {high:.1f}) "
                f"| {each['first_s']:.0f} | {each.get('peak_mb', 0):,.0f} |"
            )
    return "\n".join(rows)


def line(name: str, result: Result) -> str:
    """A result in one line."""
    shown = result.get("failed") or {
        key: round(value, 5) if isinstance(value, float) else value
        for key, value in result.items()
        if key in ("img_per_s", "p50_s", "wall_s", "first_s", "peak_mb", "piece_s")
        or not isinstance(value, float)
    }
    return f"{name:50s} {shown}"[:900]


if __name__ == "__main__":
    sys.exit(main())
