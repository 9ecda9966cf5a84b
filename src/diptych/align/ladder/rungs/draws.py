"""A backend's draws on its device.

`noise: keyed` has the host's bits on every device, so bits are compared, in the rung of the data.
`train.noise: device` has each backend's own generator, so its noise is compared with the properties
of normal noise, in the rung of the loss. A statistic passes within 5 standard errors. A step's
draws are a function of the step, so a sound backend passes always or never.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from diptych import rng
from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Workbench
from diptych.backends.protocol import Batch
from diptych.network.plan import make_plan
from diptych.training.batches import Batches
from diptych.types import Array

VALUES, ERRORS, DROPOUT = 1 << 16, 5.0, 0.25
NAMES = ("mean", "variance", "fourth moment", "images apart", "channels of an image apart",
         "again the same", "another at another step", "masks keep their share")  # fmt: skip

# An image of 108 numbers ends within a block of the stream.
KEYED: dict[str, Any] = {
    "data__image_size": 6, "data__channels": 3, "model__ch": 8, "model__norm_groups": 8,
    "model__ch_mult": [1], "model__num_res_blocks": 1, "model__attn_resolutions": [],
    "model__num_classes": 0, "model__dropout": DROPOUT, "train__noise": "keyed",
    "train__batch_size": 5,
}  # fmt: skip
FAR = 2**40  # a step and an image beyond 32 bits
SLICE = 3  # the first row of a slice of the batch


def add_keyed(bench: Workbench) -> None:
    """Add the keyed noise and masks of training and sampling, as the backend drew them itself."""
    settings = bench.settings(**KEYED)
    plan = make_plan(settings)
    pixels = np.zeros((settings.train.batch_size, *plan.shape), np.uint8)
    batch = Batches(settings, plan, pixels).batch(1)
    drawn = _keyed_by_rng if bench.panel.name == REFERENCE else _keyed_by_learner
    learner = None if bench.panel.name == REFERENCE else bench.learner(settings)
    for step in (1, 2, FAR):
        for row, name in ((0, "batch"), (SLICE, "slice")):
            rows = row, len(batch.x0)
            part = dataclasses.replace(batch, step=step, x0=batch.x0[row:], part=rows)
            eps, masks = drawn(bench, learner, plan, settings.seed, part)
            bench.add(f"keyed {step}/{name}/noise", eps)
            for k, mask in enumerate(masks):
                bench.add(f"keyed {step}/{name}/mask {k}", mask)
    for seed in (settings.seed, 2**63 - 1):
        for step in (0, 3):
            given = seed, "solver_noise", (0, 7, FAR), plan.shape, step
            if bench.panel.name == REFERENCE:
                noise = rng.normal_per_image(*given, noise="keyed")
            else:
                noise = bench.panel.read(bench.panel.backend.keyed_noise(*given))
            bench.add(f"keyed images, seed {seed}, step {step}", noise)


def _keyed_by_learner(
    bench: Workbench, learner: Any, plan: Any, seed: int, batch: Batch
) -> tuple[Array, list[Array]]:
    eps, masks = learner.draws(batch, bench.panel.put(batch.x0))
    return bench.panel.read(eps), [bench.panel.read(mask) for mask in masks]


def _keyed_by_rng(
    bench: Workbench, learner: Any, plan: Any, seed: int, batch: Batch
) -> tuple[Array, list[Array]]:
    """The whole batch on the host, cut to its slice."""
    count = batch.count
    eps = rng.keyed_normal(seed, "training_noise", (count, *plan.shape), batch.step)
    shapes = [(count, *block.shape) for block in plan.blocks]
    masks = [rng.keep_mask(seed, batch.step, k, s, DROPOUT) for k, s in enumerate(shapes)]
    return eps[batch.rows], [mask[batch.rows] for mask in masks]


def note_draws(bench: Workbench) -> None:
    """Record the verdict on each statistic of the device's draws; the reference records True."""
    found = dict.fromkeys(NAMES, True) if bench.panel.name == REFERENCE else drawn(bench)
    for name, right in found.items():
        bench.note(f"device noise: {name}", right)


def drawn(bench: Workbench) -> dict[str, bool]:
    """Verdicts by name on the statistics of two steps' noise and masks."""
    settings = bench.settings(
        train__noise="device", train__batch_size=bench.spec.batch, model__dropout=DROPOUT
    )
    learner = bench.learner(settings)
    batch = bench.batches(settings).batch(1)
    shape = batch.x0.shape[1:]
    count = max(2, VALUES // int(np.prod(shape)))
    many = dataclasses.replace(batch, x0=np.zeros((count, *shape), np.float32))

    def draw(step: int) -> tuple[Array, list[Array]]:
        at = dataclasses.replace(many, step=step)
        eps, masks = learner.draws(at, bench.panel.put(at.x0))
        return bench.panel.read(eps).astype(np.float64), [bench.panel.read(m) for m in masks]

    (eps, masks), (again, _), (other, _) = draw(1), draw(1), draw(2)
    half = shape[1] // 2
    # Products of independent normal numbers have mean 0 and variance 1.
    apart = eps[:-1] * eps[1:]
    within = eps[:, :, :half] * eps[:, :, half : 2 * half]
    kept = sum(float(m.sum()) for m in masks)
    size = sum(m.size for m in masks)
    spread = np.sqrt(DROPOUT * (1 - DROPOUT) / size)
    numbers = (
        near(eps, 0.0, 1.0), near(eps**2, 1.0, 2.0), near(eps**4, 3.0, 96.0),
        near(apart, 0.0, 1.0), near(within, 0.0, 1.0), bool((eps == again).all()),
        near(eps * other, 0.0, 1.0), abs(kept / size - (1 - DROPOUT)) < ERRORS * spread,
    )  # fmt: skip
    return dict(zip(NAMES, map(bool, numbers), strict=True))


def near(values: Array, mean: float, variance: float) -> bool:
    """True if the mean of independent values of this variance is within ERRORS standard errors."""
    return bool(abs(values.mean() - mean) < ERRORS * np.sqrt(variance / values.size))
