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
from diptych.align.process.workbench import Workbench
from diptych.backends.protocol import Batch
from diptych.config.load import Config
from diptych.types import Array

# By its full name: the package's attribute `train` is the function.
training: Any = importlib.import_module("diptych.training.loop")

DROPOUT, CLASSES = 0.25, 10
FEW = 2  # steps with other settings


def trace_loss(bench: Workbench) -> None:
    """Trace the losses of the batch, each image and single timesteps; other settings; draws."""
    batch = trace_plain_loss(bench)
    add_inside(bench, bench.learner(), batch)
    other = "mean" if bench.config.train.loss == "sum" else "sum"
    settings = bench.settings(train__loss=other)
    bench.add(f"{other} over pixels", value(bench, bench.learner(settings), batch))
    dropped = bench.settings(model__dropout=DROPOUT, train__batch_size=bench.spec.batch)
    with_masks = bench.moved_batch(bench.batches(dropped).batch(1))
    bench.add("with dropout", value(bench, bench.learner(dropped), with_masks))
    trace_objectives(bench)
    draws.note_draws(bench)


def trace_objectives(bench: Workbench) -> None:
    """Add losses that the config may not use: of a network with classes that predicts v, weighted
    by SNR if the schedule allows; of one that predicts the image; and of one that predicts the
    noise, weighted by SNR with another gamma."""
    size: dict[str, Any] = {"train__batch_size": bench.spec.batch}
    weighted = {"diffusion__objective": "eps", "diffusion__zero_terminal_snr": False}
    weighted |= {"train__weighting": "min-snr", "train__min_snr_gamma": 1.5}
    chosen: dict[str, dict[str, Any]] = {
        "with classes, of v": told(bench), "of x0": {"diffusion__objective": "x0"},
        "of eps, weighted": weighted,
    }  # fmt: skip
    for name, changes in chosen.items():
        settings = bench.settings(**size, **changes)
        batch = bench.moved_batch(bench.batches(settings).batch(1))
        bench.add(name, value(bench, bench.learner(settings), batch))


def told(bench: Workbench) -> dict[str, Any]:
    """Settings of a network with classes that predicts v, weighted unless alpha ends at 0."""
    weighting = "none" if bench.config.diffusion.ends_in_noise else "min-snr"
    changes: dict[str, Any] = {"model__num_classes": CLASSES, "train__label_dropout": 0.5}
    return changes | {"diffusion__objective": "v", "train__weighting": weighting}


def others(bench: Workbench) -> dict[str, dict[str, Any]]:
    """Settings far from any preset's, by name: they reveal any setting that a backend ignores."""
    far = told(bench) | {
        "model__dropout": DROPOUT,
        "model__norm_eps": 1e-3,
        "train__loss": "mean",
        "train__grad_clip": 0.05,
        "train__beta1": 0.7,
        "train__beta2": 0.9,
        "train__eps": 1e-4,
        "train__ema_rate": 0.5,
        "train__ema_warmup": False,
        "train__min_snr_gamma": 2.0,
    }
    return {"other settings": far, "not clipped": {"train__grad_clip": None, "train__loss": "sum"}}


def trace_plain_loss(bench: Workbench) -> Batch:
    """Trace the losses of the batch, each image and single timesteps; return the batch."""
    learner, source = bench.learner(), bench.batches()
    batch = bench.moved_batch(source.batch(1))
    bench.add("batch", value(bench, learner, batch))
    for i in range(len(batch.x0)):
        bench.add(f"image {i}", value(bench, learner, rows(batch, slice(i, i + 1))))
    last = bench.config.diffusion.timesteps - 1
    for t in (0, last // 8, last):
        many = np.full(len(batch.x0), t)
        at_t = dataclasses.replace(
            batch,
            t=many,
            alpha=source.alpha[many],
            sigma=source.sigma[many],
            embedding=source.embedding[many],
            weight=None if source.weight is None else source.weight[many],
        )
        bench.add(f"t={t}", value(bench, learner, at_t))
    return batch


def add_inside(bench: Workbench, learner: Any, batch: Batch) -> None:
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
        bench.add(f"network/{name}", bench.panel.read(array))


def value(bench: Workbench, learner: Any, batch: Batch) -> Array:
    """A batch's loss: float64, shape ()."""
    return bench.panel.read(learner.loss(batch)).reshape(()).astype(np.float64)


def rows(batch: Batch, part: slice) -> Batch:
    """Some rows of a batch."""
    arrays = ("x0", "t", "alpha", "sigma", "embedding", "eps", "labels", "classes", "weight")
    cut: dict[str, Any] = {
        name: None if (a := getattr(batch, name)) is None else a[part] for name in arrays
    }
    masks = None if batch.masks is None else tuple(mask[part] for mask in batch.masks)
    return dataclasses.replace(batch, **cut, masks=masks)


def trace_gradients(bench: Workbench) -> None:
    """Trace gradients with the config's settings, and with settings far from any preset's."""
    trace_plain_gradients(bench)
    add_gradients(bench, "other settings: ", others(bench)["other settings"])


def trace_plain_gradients(bench: Workbench) -> None:
    """Trace gradients with the config's settings."""
    add_gradients(bench, "", {})


def add_gradients(bench: Workbench, name: str, changes: dict[str, Any]) -> None:
    """Add the gradient of each weight on the first batch, and their total norm.

    The norm comes last, so that a wrong weight is named first. Names begin with `name`.
    """
    settings = bench.settings(train__batch_size=bench.spec.batch, **changes)
    batch = bench.moved_batch(bench.batches(settings).batch(1))
    _, found = bench.learner(settings).gradients(batch)
    for weight, gradient in found.items():
        bench.add(f"{name}{weight}", gradient)
    total = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in found.values()))
    bench.add(f"{name}total norm", np.float64(total))


def trace_lockstep(bench: Workbench) -> None:
    """Trace losses and gradient norms of the first steps, then weights, average and moments;
    again for a few steps with settings far from any preset's."""
    size = {"train__batch_size": bench.spec.batch}
    lockstep(bench, "", bench.settings(**size), bench.spec.steps)
    for name, changes in others(bench).items():
        lockstep(bench, f"{name}: ", bench.settings(**size, **changes), min(FEW, bench.spec.steps))


def lockstep(bench: Workbench, name: str, settings: Config, steps: int) -> None:
    """Train for `steps` with `settings`; every tensor's name begins with `name`."""
    learner, source = bench.learner(settings), bench.batches(settings)
    scalar, t = bench.panel.backend.scalar, settings.train
    last = t.last_step(source.steps_per_epoch)
    for step in range(1, steps + 1):
        batch = source.batch(step)
        batch = bench.moved_batch(batch) if step == 1 else batch
        lr = training.learning_rate(t, last, step)
        loss, norm = learner.step(batch, lr)
        bench.add(f"{name}loss/{step:04d}", np.float64(scalar(loss)))
        bench.add(f"{name}norm/{step:04d}", np.float64(scalar(norm)))
    state = learner.state()
    for group in ("raw", "ema", "adam_m", "adam_v"):
        for weight, array in getattr(state, group).items():
            bench.add(f"{name}{group}/{weight}", array.astype(np.float32))
