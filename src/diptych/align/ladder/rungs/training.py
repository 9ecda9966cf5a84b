"""Training as a whole: loss, gradients, and steps in lockstep.

In lockstep both backends see the same batches. They may differ by as much as one backend differs
from itself after one rounding of its first input.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

import numpy as np

from diptych.align.ladder.rungs import draws
from diptych.align.process.workbench import Desk
from diptych.backends.protocol import Batch
from diptych.config.load import Config
from diptych.types import Array

# By its full name: the package's attribute `train` is the function.
training: Any = importlib.import_module("diptych.training.loop")

DROPOUT, CLASSES = 0.25, 10
FEW = 2  # steps with other settings


def trace_loss(desk: Desk) -> None:
    """Trace the losses of the batch, each image and single timesteps; other settings; draws."""
    batch = trace_plain_loss(desk)
    add_inside(desk, desk.learner(), batch)
    other = "mean" if desk.config.train.loss == "sum" else "sum"
    settings = desk.settings(train__loss=other)
    desk.add(f"{other} over pixels", value(desk, desk.learner(settings), batch))
    dropped = desk.settings(model__dropout=DROPOUT, train__batch_size=desk.spec.batch)
    with_masks = desk.moved_batch(desk.batches(dropped).batch(1))
    desk.add("with dropout", value(desk, desk.learner(dropped), with_masks))
    trace_objectives(desk)
    draws.note_draws(desk)


def trace_objectives(desk: Desk) -> None:
    """Add losses that the config may not use: of a network with classes that predicts v, weighted
    by SNR if the schedule allows; of one that predicts the image; and of one that predicts the
    noise, weighted by SNR with another gamma."""
    size: dict[str, Any] = {"train__batch_size": desk.spec.batch}
    weighted = {"diffusion__objective": "eps", "diffusion__zero_terminal_snr": False}
    weighted |= {"train__weighting": "min-snr", "train__min_snr_gamma": 1.5}
    chosen: dict[str, dict[str, Any]] = {
        "with classes, of v": told(desk), "of x0": {"diffusion__objective": "x0"},
        "of eps, weighted": weighted,
    }  # fmt: skip
    for name, changes in chosen.items():
        settings = desk.settings(**size, **changes)
        batch = desk.moved_batch(desk.batches(settings).batch(1))
        desk.add(name, value(desk, desk.learner(settings), batch))


def told(desk: Desk) -> dict[str, Any]:
    """Settings of a network with classes that predicts v, weighted unless alpha ends at 0."""
    weighting = "none" if desk.config.diffusion.zero_terminal_snr else "min-snr"
    changes: dict[str, Any] = {"model__num_classes": CLASSES, "train__label_dropout": 0.5}
    return changes | {"diffusion__objective": "v", "train__weighting": weighting}


def others(desk: Desk) -> dict[str, dict[str, Any]]:
    """Settings far from any preset's, by name: they reveal any setting that a backend ignores."""
    far = told(desk) | {
        "model__dropout": DROPOUT, "model__norm_eps": 1e-3, "train__loss": "mean",
        "train__grad_clip": 0.05, "train__beta1": 0.7, "train__beta2": 0.9, "train__eps": 1e-4,
        "train__ema_rate": 0.5, "train__ema_warmup": False, "train__min_snr_gamma": 2.0,
    }  # fmt: skip
    return {"other settings": far, "not clipped": {"train__grad_clip": None, "train__loss": "sum"}}


def trace_plain_loss(desk: Desk) -> Batch:
    """Trace the losses of the batch, each image and single timesteps; return the batch."""
    learner, source = desk.learner(), desk.batches()
    batch = desk.moved_batch(source.batch(1))
    desk.add("batch", value(desk, learner, batch))
    for i in range(len(batch.x0)):
        desk.add(f"image {i}", value(desk, learner, rows(batch, slice(i, i + 1))))
    last = desk.config.diffusion.timesteps - 1
    for t in (0, last // 8, last):
        many = np.full(len(batch.x0), t)
        at_t = dataclasses.replace(
            batch, t=many, alpha=source.alpha[many], sigma=source.sigma[many],
            embedding=source.embedding[many],
            weight=None if source.weight is None else source.weight[many],
        )  # fmt: skip
        desk.add(f"t={t}", value(desk, learner, at_t))
    return batch


def add_inside(desk: Desk, learner: Any, batch: Batch) -> None:
    """Add the network's inputs and output: the loss is a mean and hides small faults."""
    network, seen = learner.network, []

    def recorded(*given: Any) -> Any:
        seen.append([*given[:2], network(*given)])
        return seen[-1][-1]

    learner.network = recorded
    try:
        learner.loss(batch)
    finally:
        learner.network = network
    for name, array in zip(("noisy images", "times", "answer"), seen[0], strict=True):
        desk.add(f"network/{name}", desk.panel.read(array))


def value(desk: Desk, learner: Any, batch: Batch) -> Array:
    """A batch's loss: float64, shape ()."""
    return desk.panel.read(learner.loss(batch)).reshape(()).astype(np.float64)


def rows(batch: Batch, part: slice) -> Batch:
    """Some rows of a batch."""
    arrays = ("x0", "t", "alpha", "sigma", "embedding", "eps", "labels", "classes", "weight")
    cut: dict[str, Any] = {
        name: None if (a := getattr(batch, name)) is None else a[part] for name in arrays
    }
    masks = None if batch.masks is None else tuple(mask[part] for mask in batch.masks)
    return dataclasses.replace(batch, **cut, masks=masks)


def trace_gradients(desk: Desk) -> None:
    """Trace gradients with the config's settings, and with settings far from any preset's."""
    trace_plain_gradients(desk)
    add_gradients(desk, "other settings: ", others(desk)["other settings"])


def trace_plain_gradients(desk: Desk) -> None:
    """Trace gradients with the config's settings."""
    add_gradients(desk, "", {})


def add_gradients(desk: Desk, name: str, changes: dict[str, Any]) -> None:
    """Add the gradient of each weight on the first batch, and their total norm.

    The norm comes last, so that a wrong weight is named first. Names begin with `name`.
    """
    settings = desk.settings(train__batch_size=desk.spec.batch, **changes)
    batch = desk.moved_batch(desk.batches(settings).batch(1))
    _, found = desk.learner(settings).gradients(batch)
    for weight, gradient in found.items():
        desk.add(f"{name}{weight}", gradient)
    total = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in found.values()))
    desk.add(f"{name}total norm", np.float64(total))


def trace_lockstep(desk: Desk) -> None:
    """Trace losses and gradient norms of the first steps, then weights, average and moments;
    again for a few steps with settings far from any preset's."""
    size = {"train__batch_size": desk.spec.batch}
    lockstep(desk, "", desk.settings(**size), desk.spec.steps)
    for name, changes in others(desk).items():
        lockstep(desk, f"{name}: ", desk.settings(**size, **changes), min(FEW, desk.spec.steps))


def lockstep(desk: Desk, name: str, settings: Config, steps: int) -> None:
    """Train for `steps` with `settings`; every tensor's name begins with `name`."""
    learner, source = desk.learner(settings), desk.batches(settings)
    scalar, t = desk.panel.backend.scalar, settings.train
    last = t.last_step(source.steps_per_epoch)
    for step in range(1, steps + 1):
        batch = source.batch(step)
        batch = desk.moved_batch(batch) if step == 1 else batch
        lr = training.learning_rate(t, last, step)
        loss, norm = learner.step(batch, lr)
        desk.add(f"{name}loss/{step:04d}", np.float64(scalar(loss)))
        desk.add(f"{name}norm/{step:04d}", np.float64(scalar(norm)))
    state = learner.state()
    for group in ("raw", "ema", "adam_m", "adam_v"):
        for weight, array in getattr(state, group).items():
            desk.add(f"{name}{group}/{weight}", array.astype(np.float32))
