"""One rank of `benchmarks.growth`: python -m benchmarks.growth_rank '{"task": "training", ...}'

Its number comes from the environment, as from torchrun; it prints its numbers as one line of JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.job import SEED
from benchmarks.sizes import images
from diptych import backends
from diptych.config.load import load_config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.ranks import Ranks, of_environment
from diptych.training.batches import Batches
from diptych.training.group import Group

PARTS = ("draws", "gradients", "waiting", "sums", "update", "agreement")
LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


def training(asked: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Seconds of each part of each step, and its losses.

    `waiting` is for the slowest rank, and `sums` the all-reduce when all are there. The draws come
    first and alone here; `diptych train` draws the next batch in a thread.
    """
    import torch.distributed as dist

    from diptych.backends.torch import learner as module

    changes = [f"train.batch_size={asked['batch']}", f"train.noise={asked['noise']}"]
    config = load_config(asked["preset"], [*asked["changes"], *changes])
    backend: Any = backends.load("torch", "cpu", ranks=ranks)
    group, plan = Group(ranks, backend), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, SEED), config.train, SEED)
    batches = Batches(config, plan, images(config)[: asked["images"]])
    spent = dict.fromkeys(PARTS, 0.0)
    all_sum = module.all_sum

    def timed(arrays: Any, of: Ranks) -> Any:
        began = time.perf_counter()
        dist.barrier()
        met = time.perf_counter()
        summed = all_sum(arrays, of)
        spent["waiting"] += met - began
        spent["sums"] += time.perf_counter() - met
        return summed

    module.all_sum = timed  # type: ignore[assignment]
    rows, losses = [], []
    cpu = began_all = 0.0
    for step in range(1, asked["warmup"] + asked["steps"] + 1):
        if step == asked["warmup"] + 1:
            group.most(0)
            cpu, began_all = time.process_time(), time.perf_counter()
        spent.update(dict.fromkeys(PARTS, 0.0))
        began = time.perf_counter()
        batch = batches.batch(step, ranks)
        drawn = time.perf_counter()
        loss, gradients = learner.summed(batch)
        summed = time.perf_counter()
        learner.update(gradients, 1e-4)
        updated = time.perf_counter()
        group.most(0)
        ended = time.perf_counter()
        spent["draws"] = drawn - began
        spent["gradients"] = summed - drawn - spent["waiting"] - spent["sums"]
        spent["update"], spent["agreement"] = updated - summed, ended - updated
        losses.append(float(loss.detach()))
        if step > asked["warmup"]:
            rows.append([spent[part] for part in PARTS])
    return {
        "seconds": time.perf_counter() - began_all,
        "cpu_seconds": time.process_time() - cpu,
        "parts": dict(zip(PARTS, np.median(rows, axis=0).tolist(), strict=True)),
        "losses": losses,
        "parameters": sum(array.numel() for array in learner.raw.values()),
    }


def sampling(asked: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Seconds of this rank's batches j, j mod world = rank; all ranks begin together."""
    from diptych.model import load
    from diptych.sampling.sampler import make_sampler

    model = load("zoo:mnist-torch", "torch", device="cpu")
    sampler = make_sampler("ddim", asked["steps"])
    meeting = Group(ranks, backends.load("torch", "cpu", ranks=ranks))
    count, batches = asked["batch"], asked["batches"]
    model.engine.draw(sampler, range(count), 0)
    meeting.most(0)
    cpu, began = time.process_time(), time.perf_counter()
    for batch in range(ranks.rank, batches, ranks.world):
        model.engine.pixels(
            model.engine.draw(sampler, range(batch * count, (batch + 1) * count), 0)
        )
    own = time.perf_counter() - began
    used = time.process_time() - cpu
    meeting.most(0)
    return {"seconds": time.perf_counter() - began, "own": own, "cpu_seconds": used}


def wire(asked: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Seconds of an all-reduce by its size, and the bytes that all ranks send for it together."""
    import torch
    import torch.distributed as dist

    backends.load("torch", "cpu", ranks=ranks)
    found = []
    for elements in asked["elements"]:
        flat = torch.zeros(elements)
        dist.all_reduce(flat)
        times = []
        dist.barrier()
        before = int(LOOPBACK.read_text())
        for _ in range(asked["reps"]):
            began = time.perf_counter()
            dist.all_reduce(flat)
            times.append(time.perf_counter() - began)
        dist.barrier()
        sent = int(LOOPBACK.read_text()) - before
        found.append({"elements": elements, "seconds": float(np.median(times)),
                      "bytes": sent / asked["reps"]})  # fmt: skip
    return {"sizes": found}


def main() -> None:
    """Do the task of the command line."""
    import torch

    asked, ranks = json.loads(sys.argv[1]), of_environment()
    torch.set_num_threads(asked["threads"])
    work = {"training": training, "sampling": sampling, "wire": wire}[asked["task"]]
    found = work(asked, ranks)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
