"""Inception's speed in both backends, interleaved on one machine: only the ratio counts.

    python benchmarks/features.py [--images 32] [--pairs 7]

Random weights in the published layout; each backend in its own process, one at a time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PANELS = ("torch", "jittor")
sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))


def serve(backend: str, weights: Path, count: int) -> None:
    """Print wall and processor seconds of one pass for each line on stdin."""
    from diptych.evaluation.features import open_extractor
    from inception_file import images, preprocessed

    network, x = open_extractor("inception", backend, "cpu", weights), preprocessed(images(count))
    network(x)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        network(x)
        print(time.perf_counter() - wall, time.process_time() - processor, flush=True)


def start(backend: str, weights: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--serve", backend, str(weights), "--images", str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while (line := process.stdout.readline()).strip() != "ready":
        if not line:
            raise SystemExit(f"{backend}: the process ended before it was ready")
    return process


def ask(process: subprocess.Popen[str]) -> list[float]:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return [float(part) for part in process.stdout.readline().split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        return serve(given.serve[0], Path(given.serve[1]), given.images)
    from inception_file import write

    with tempfile.TemporaryDirectory() as folder:
        weights = write(Path(folder) / "random.safetensors")
        processes = {name: start(name, weights, given.images) for name in PANELS}
        seconds: dict[str, list[list[float]]] = {name: [] for name in PANELS}
        for k in range(given.pairs):
            for name in PANELS if k % 2 else PANELS[::-1]:
                seconds[name].append(ask(processes[name]))
        for process in processes.values():
            process.communicate()
    for name, rows in seconds.items():
        wall, processor = np.median(rows, 0)
        print(f"{name}: {given.images / wall:.1f} images/s, processor time {processor:.2f} s")
    ratio = np.median(np.array(seconds["jittor"]) / np.array(seconds["torch"]), 0)
    print(f"jittor / torch, median of {given.pairs} pairs: wall {ratio[0]:.2f}, cpu {ratio[1]:.2f}")


if __name__ == "__main__":
    main()
