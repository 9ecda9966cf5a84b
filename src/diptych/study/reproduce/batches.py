"""Time in seconds of each sampled batch of a run, in order, and the kernels loaded after each.

    python -m diptych.study.reproduce.batches RUN --backend jittor --steps 50 --batches 12 --out
    FILE

The first batches include one-time work: compiling or loading kernels, allocating memory.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median
from typing import Any

from diptych.files import write_json
from diptych.model import Model, load
from diptych.runs.records import BatchTimes
from diptych.sampling.sampler import make_sampler
from diptych.study.reproduce.alone import in_one_line

SIZE = 64


def time_batches(model: Model, steps: int, batches: int, size: int = SIZE) -> dict[str, Any]:
    """Generate `batches` batches of `size` images with DDIM, synchronising before and after each.

    Returns:
        Seconds of each batch, first_s, rest_median_s (of the second half), and the kernel count
        after each batch, or None.
    """
    backend = model.engine.backend
    sampler = make_sampler("ddim", steps, timesteps=model.engine.schedule.timesteps)
    seconds, kernels = [], []
    for batch in range(batches):
        backend.synchronize()
        began = time.perf_counter()
        model.engine.draw(sampler, range(batch * size, (batch + 1) * size), 0)
        backend.synchronize()
        seconds.append(time.perf_counter() - began)
        kernels.append(backend.counters().get("kernels"))
    return {
        "schema": 1,
        "kind": "batch_times",
        "backend": backend.name,
        "device": backend.device,
        "solver": "ddim",
        "steps": steps,
        "batch": size,
        "seconds": seconds,
        "first_s": seconds[0],
        "rest_median_s": median(seconds[len(seconds) // 2 :]),
        "kernels": kernels if kernels[0] is not None else None,
    }


def main() -> None:
    """Run the command in the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m diptych.study.reproduce.batches")
    parser.add_argument("run")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    with in_one_line():
        model = load(words.run, words.backend, device=words.device)
        found = time_batches(model, words.steps, words.batches)
        write_json(words.out, BatchTimes.checked(found))


if __name__ == "__main__":
    main()
