"""Losses of finished runs per bin of timesteps.

    python -m diptych.align.training.losses SPEC.json OUT

    loss(bin) = mean of (eps - network(alpha x0 + sigma eps, t))**2 over images and t in the bin

(with the image or v as target if the network predicts that, and conditioned on each image's class
if it has classes).

Each backend evaluates its own runs on the same images, timesteps and noise, all keyed by EVAL_SEED,
so the losses differ only through the weights (and rounding).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from diptych import backends, rng
from diptych.align.process.workbench import find_data
from diptych.backends.protocol import Backend
from diptych.config.load import Config, load_config
from diptych.data.preprocess import preprocess_of
from diptych.diffusion.classes import class_rows
from diptych.diffusion.objective import target
from diptych.diffusion.schedule import make_schedule
from diptych.errors import MachineError, UserError, show_notices
from diptych.files import read_json, write_json
from diptych.network.embedding import time_embedding
from diptych.network.plan import Plan, make_plan
from diptych.runs import checkpoint
from diptych.types import Weights

EVAL_SEED = 20_000_003
IMAGES = 64  # in each bin


def run(path: Path, out: Path) -> None:
    """Evaluate the runs of a spec file, {backend, device, bins, runs}."""
    spec = read_json(path)
    backend = backends.load(spec["backend"], spec["device"])
    found = {}
    for name in spec["runs"]:
        config = load_config(str(Path(name) / "config.yaml"))
        plan = make_plan(config)
        weights = checkpoint.load_weights(checkpoint.latest(Path(name)), "ema", plan)
        found[name] = bin_losses(backend, config, plan, weights, spec["bins"])
    write_json(out, found)


def bin_losses(
    backend: Backend, config: Config, plan: Plan, weights: Weights, bins: int
) -> list[float]:
    """The loss in each bin of equally many timesteps."""
    images, labels, _ = find_data(config)
    tables = make_schedule(config.diffusion)
    network = backend.network(plan, weights)
    edges = np.linspace(0, tables.timesteps, bins + 1)
    found = []
    for k in range(bins):
        chosen = rng.stream(EVAL_SEED, "order", k).permutation(len(images))[:IMAGES]
        pixels = np.ascontiguousarray(images[chosen])
        x0 = preprocess_of(config.data).floats(pixels, EVAL_SEED, k)
        t = np.linspace(edges[k], edges[k + 1], len(x0), endpoint=False).astype(np.int64)
        eps = rng.normal(EVAL_SEED, "training_noise", x0.shape, k)
        alpha, sigma = (
            table[t].astype(np.float32)[:, None, None, None]
            for table in (tables.alpha, tables.sigma)
        )
        given = [backend.array(alpha * x0 + sigma * eps)]
        given.append(backend.array(time_embedding(t, plan.ch)))
        if plan.num_classes and labels is not None:
            given.append(backend.array(class_rows(labels[chosen], plan.num_classes)))
        predicted: Any = backend.numpy(backend.predict(network, *given))
        wanted = target(plan.objective, x0, eps, alpha, sigma)
        found.append(float(np.mean((predicted.astype(np.float64) - wanted) ** 2)))
    return found


def main() -> int:
    """Run the process; return its exit code."""
    show_notices()
    try:
        run(Path(sys.argv[1]), Path(sys.argv[2]))
    except (UserError, MachineError) as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
