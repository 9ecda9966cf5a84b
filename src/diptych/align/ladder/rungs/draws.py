"""Statistics of a backend's draws on its device (`train.noise: device`), whose bits differ.

Each backend has its own generator, so its noise is compared with the properties of normal noise. A
statistic passes within 5 standard errors. A step's draws are a function of the step, so a sound
backend passes always or never.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Desk
from diptych.types import Array

VALUES, ERRORS, DROPOUT = 1 << 16, 5.0, 0.25
NAMES = ("mean", "variance", "fourth moment", "images apart", "channels of an image apart",
         "again the same", "another at another step", "masks keep their share")  # fmt: skip


def note_draws(desk: Desk) -> None:
    """Record the verdict on each statistic of the device's draws; the reference records True."""
    found = dict.fromkeys(NAMES, True) if desk.panel.name == REFERENCE else drawn(desk)
    for name, right in found.items():
        desk.note(f"device noise: {name}", right)


def drawn(desk: Desk) -> dict[str, bool]:
    """Verdicts by name on the statistics of two steps' noise and masks."""
    settings = desk.settings(
        train__noise="device", train__batch_size=desk.spec.batch, model__dropout=DROPOUT
    )
    learner = desk.learner(settings)
    batch = desk.batches(settings).batch(1)
    shape = batch.x0.shape[1:]
    count = max(2, VALUES // int(np.prod(shape)))
    many = dataclasses.replace(batch, x0=np.zeros((count, *shape), np.float32))

    def draw(step: int) -> tuple[Array, list[Array]]:
        at = dataclasses.replace(many, step=step)
        eps, masks = learner.draws(at, desk.panel.put(at.x0))
        return desk.panel.read(eps).astype(np.float64), [desk.panel.read(m) for m in masks]

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
