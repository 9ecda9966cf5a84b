"""Training taken apart: loss, gradients, one update on given gradients, and steps in lockstep.

The update is tried by itself, on arrays that are the same everywhere: a fault in it cannot hide
behind the network, and one in the network cannot reach it. In lockstep both panels meet the same
batches, and what they may differ by is what one panel differs by from itself after one rounding
of its first input.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np

from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Desk
from diptych.backends.protocol import Batch
from diptych.types import Array

# By its full name: the package's attribute `train` is the function.
training: Any = importlib.import_module("diptych.training.loop")

DROPOUT, CLASSES = 0.25, 10
SIZES: dict[str, tuple[int, ...]] = {"a": (32, 16, 3, 3), "b": (64,), "c": (40, 24)}
UPDATES = {"step 1, clipped": (1, 3.0), "step 7, clipped": (7, 1.0), "step 7, small": (7, 1e-4)}
RUN = 20  # steps of the run whose learning rates are noted, and two more
RATES: dict[str, dict[str, Any]] = {
    "warm-up": {"train__warmup_steps": 8, "train__lr_decay": "none", "train__lr_final": 0.0},
    "no warm-up": {"train__warmup_steps": 0, "train__lr_decay": "none", "train__lr_final": 0.0},
    "decay, linear": {"train__warmup_steps": 8, "train__lr_decay": "linear",
                      "train__lr_final": 0.1},
    "decay, cosine": {"train__warmup_steps": 8, "train__lr_decay": "cosine",
                      "train__lr_final": 0.1},
}  # fmt: skip
AVERAGED = (1, 90, 20_000)  # steps: the warm-up's first, one inside it, one long after
NUMBERS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "eps": 1e-5, "max_norm": 1.0, "ema_rate": 0.9}


def trace_loss(desk: Desk) -> None:
    """The batch's loss, each image's, one timestep's at a time, the sum over pixels, dropout."""
    batch = trace_plain_loss(desk)
    other = "mean" if desk.config.train.loss == "sum" else "sum"
    settings = desk.settings(train__loss=other)
    desk.add(f"{other} over pixels", value(desk, desk.learner(settings), batch))
    size = {"train__batch_size": desk.spec.batch}
    dropped = desk.settings(model__dropout=DROPOUT, train__noise="host", **size)
    with_masks = desk.moved_batch(desk.batches(dropped).batch(1))
    desk.add("with dropout", value(desk, desk.learner(dropped), with_masks))
    trace_objectives(desk)


def trace_objectives(desk: Desk) -> None:
    """Losses that a config need not have: of a network with classes that predicts v, weighted by
    SNR, and of one that predicts the image."""
    weighting = "none" if desk.config.diffusion.zero_terminal_snr else "min-snr"
    common: dict[str, Any] = {"train__batch_size": desk.spec.batch, "train__noise": "host"}
    told: dict[str, Any] = {"model__num_classes": CLASSES, "train__label_dropout": 0.5}
    told |= {"diffusion__objective": "v", "train__weighting": weighting}
    chosen = {"with classes, of v": told, "of x0": {"diffusion__objective": "x0"}}
    for name, changes in chosen.items():
        settings = desk.settings(**common, **changes)
        batch = desk.moved_batch(desk.batches(settings).batch(1))
        desk.add(name, value(desk, desk.learner(settings), batch))


def trace_plain_loss(desk: Desk) -> Batch:
    """The batch's loss, each image's, and one timestep's at a time; gives the batch."""
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


def value(desk: Desk, learner: Any, batch: Batch) -> Array:
    """A batch's loss, one number."""
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
    """The gradient of each weight in the first batch, and the norm of all together."""
    _, found = desk.learner().gradients(desk.moved_batch(desk.batches().batch(1)))
    total = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in found.values()))
    desk.add("total norm", np.float64(total))
    for name, gradient in found.items():
        desk.add(name, gradient)


def trace_update(desk: Desk) -> None:
    """Clipping's norm, both moments, weights and moving average after one step; learning
    rates; the average's warm-up."""
    for name, (step, size) in UPDATES.items():
        for key, array in one_update(desk, name, step, size).items():
            desk.add(f"{name}/{key}", array)
    for name, changes in RATES.items():
        settings = desk.settings(train__lr=1e-3, **changes).train
        rates = [training.learning_rate(settings, RUN, step) for step in range(1, RUN + 3)]
        desk.add(name, np.array(rates))
    for step in AVERAGED:
        desk.add(f"average's share at step {step}", averaged(desk, step))


def averaged(desk: Desk, step: int) -> Array:
    """The share that the moving average takes of a step's change of the weights, with warm-up.

    A large change, so that the average's own rounding is far below its share.
    """
    settings = desk.settings(
        train__batch_size=desk.spec.batch, train__noise="host", train__ema_warmup=True,
        train__ema_rate=0.999,
    )  # fmt: skip
    learner = desk.learner(settings)
    before = learner.state()
    learner.count = step - 1
    learner.step(desk.batches(settings).batch(1), 1.0)
    after, change, moved = learner.state(), 0.0, 0.0
    for name, array in after.raw.items():
        raw = array.astype(np.float64) - before.raw[name]
        change += float((raw * raw).sum())
        moved += float(((after.ema[name].astype(np.float64) - before.ema[name]) * raw).sum())
    return np.array(moved / change)


def one_update(desk: Desk, name: str, step: int, size: float) -> dict[str, Array]:
    """`adam_step` on keyed arrays; changes of the weights and of their average, not these."""
    keys = ("p", "g", "m", "v", "e")
    given = {k: {n: desk.normal(f"{name}/{k}/{n}", s) for n, s in SIZES.items()} for k in keys}
    given["g"] = {n: a * np.float32(size) for n, a in given["g"].items()}
    for k in ("p", "e"):  # small, so that the change that they undergo is not lost in their digits
        given[k] = {n: a * np.float32(1e-3) for n, a in given[k].items()}
    for k in ("m", "v"):  # as after some steps; at the first there are none
        given[k] = {n: a * np.float32(size * (step > 1)) for n, a in given[k].items()}
    given["v"] = {n: a * a for n, a in given["v"].items()}
    before = {k: {n: a.astype(np.float64) for n, a in given[k].items()} for k in keys}
    if desk.panel.name == REFERENCE:
        from diptych.align.reference.backend import adam

        given_all: Any = [before[k] for k in keys]
        numbers: Any = NUMBERS
        norm: Any = adam(*given_all, step=step, **numbers)
        after = before
    else:
        norm, after = on_device(desk, given, step)
    result: dict[str, Array] = {"norm": np.array(norm, dtype=np.float64)}
    for k in ("m", "v", "p", "e"):
        for n in SIZES:
            change = after[k][n].astype(np.float64)
            result[f"{k}.{n}"] = change - given[k][n] if k in "pe" else change
    return result


def on_device(desk: Desk, given: dict[str, dict[str, Array]], step: int) -> tuple[float, Any]:
    """The panel's own `adam_step`: the norm, and its arrays afterwards."""
    panel = desk.panel
    groups = {k: [panel.put(a.copy()) for a in arrays.values()] for k, arrays in given.items()}
    norm = panel.part("optim").adam_step(*groups.values(), step=step, **NUMBERS)
    after = {
        k: {n: panel.read(a) for n, a in zip(SIZES, arrays, strict=True)}
        for k, arrays in groups.items()
    }
    return panel.backend.scalar(norm), after


def trace_lockstep(desk: Desk) -> None:
    """Losses and gradient norms of the first steps; then weights, average and moments."""
    settings = desk.settings(train__batch_size=desk.spec.batch, train__noise="host")
    learner, source = desk.learner(settings), desk.batches(settings)
    scalar, t = desk.panel.backend.scalar, settings.train
    last = training.last_step(t, source.steps_per_epoch)
    for step in range(1, desk.spec.steps + 1):
        batch = source.batch(step)
        batch = desk.moved_batch(batch) if step == 1 else batch
        lr = training.learning_rate(t, last, step)
        loss, norm = learner.step(batch, lr)
        desk.add(f"loss/{step:04d}", np.float64(scalar(loss)))
        desk.add(f"norm/{step:04d}", np.float64(scalar(norm)))
    state = learner.state()
    for group in ("raw", "ema", "adam_m", "adam_v"):
        for name, array in getattr(state, group).items():
            desk.add(f"{group}/{name}", array.astype(np.float32))
