"""Jobs of the tests of keyed noise, which run in a backend's own process."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

import numpy as np

import panel_jobs
from diptych import backends
from diptych.config.load import Config
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.rng import Blocks, keyed_normal
from diptych.types import Array

# First block, rows and number of blocks of a draw: small and large keys, rows and counters.
DRAWS = (
    (Blocks(0, "training_noise", 0, 0), [1], 700),
    (Blocks(2**63 - 1, "solver_noise", 999, 5), [0, 2**40, 49_999, 2**63 - 1], 7),
    (Blocks(7, "initial_noise", 2**63, 2**40 + 3), [2**63], 3),
    (Blocks(5, "dropout", 3, 2**32 - 1), [2**32, 2**32 - 1], 2),
)
LIMITS = (0, 1, 6554, 65_535, 65_536)


def blocks(name: str, way: str) -> list[Array]:
    """The normals and masks of DRAWS by a backend, on its CPU.

    Args:
        way: "panel" as the panel draws; "operators" by PyTorch's; "triton" by its interpreter.
    """
    backends.load(name, "cpu")
    found: list[Array] = []
    if way == "triton":  # read when kernels are defined, and when they run
        os.environ["TRITON_INTERPRET"] = "1"
    try:
        for begin, rows, count in DRAWS:
            normals, masks = _draw(name, way, begin, rows, count)
            found += [np.array(normals.numpy()), *(np.array(mask.numpy()) for mask in masks)]
    finally:
        os.environ.pop("TRITON_INTERPRET", None)
    return found


def _draw(name: str, way: str, begin: Blocks, rows: list[int], count: int) -> tuple[Any, list[Any]]:
    if way == "panel":
        panel = importlib.import_module(f"diptych.backends.{name}.draws")
        return panel.normals(begin, rows, count, "cpu"), [
            panel.masks(begin, rows[0], count, limit, "cpu") for limit in LIMITS
        ]
    operators = importlib.import_module("diptych.backends.torch.block_draws")
    if way == "operators":
        words = operators.words(begin, rows, count, "cpu")
        return operators.normal_of(words), [operators.kept(words[:1], k) for k in LIMITS]
    import torch

    kernels = operators.triton_kernels()
    return kernels.normals(torch.from_numpy(begin.integers(*rows)), len(rows), count), [
        kernels.masks(torch.from_numpy(begin.integers(rows[0], k)), count) for k in LIMITS
    ]


def losses(name: str, config: Config) -> list[float]:
    """Of two steps: the loss with the backend's own draws, with the host's equal ones, and the
    sum of the batch's two slices."""
    backend, plan = backends.load(name, "cpu"), make_plan(config)
    learner = backend.learner(plan, initial_weights(plan, 0), config.train, config.seed)
    source, found = panel_jobs.batches(config), []
    for step in (1, 2):
        batch = source.batch(step)
        eps = keyed_normal(config.seed, "training_noise", batch.x0.shape, step)
        masks = source.masks(step, batch.count, batch.rows)
        given = dataclasses.replace(batch, eps=eps, masks=masks)
        found += [backend.scalar(learner.loss(b)) for b in (batch, given)]
        total = 0.0
        for rows in (slice(0, 3), slice(3, None)):
            each = ("x0", "t", "alpha", "sigma", "embedding")
            cut = {k: getattr(batch, k)[rows] for k in each}
            part = dataclasses.replace(batch, part=(rows.start, batch.count), **cut)
            total += backend.scalar(learner.loss(part))
        found.append(total)
    return found


def drawn(name: str, config: Config, images: list[int], noise: str) -> Array:
    """Samples of a fresh model, uint8: DDIM with eta 1, 4 steps."""
    model = panel_jobs.make(name, config)
    sampler = panel_jobs.make_sampler("ddim", 4, 1.0, noise=noise)
    return model.engine.draw(sampler, images, seed=3)
