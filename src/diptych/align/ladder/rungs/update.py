"""One update by itself, on the same arrays everywhere; learning rates; the average's rate.

A fault in the update cannot hide behind the network, and one in the network cannot reach it. The
total norm is also taken over as many gradients as the config's network has, and over millions:
a sum only loses digits at such sizes.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np

from diptych.align.process.panels import REFERENCE
from diptych.align.process.workbench import Workbench
from diptych.network.parameters import parameter_table
from diptych.types import Array

# By its full name: the package's attribute `train` is the function.
training: Any = importlib.import_module("diptych.training.loop")

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
MANY: dict[str, tuple[int, ...]] = {"million": (2_400_000,), "few": (512,)}
SHOWN = 256  # of each array


def trace_update(bench: Workbench) -> None:
    """Trace the clipping norm, both moments, weights and moving average after one step; learning
    rates; the average's warm-up."""
    for name, (step, size) in UPDATES.items():
        for key, array in one_update(bench, name, step, size).items():
            bench.add(f"{name}/{key}", array)
    trace_sizes(bench)
    for name, changes in RATES.items():
        settings = bench.settings(train__lr=1e-3, **changes).train
        rates = [training.learning_rate(settings, RUN, step) for step in range(1, RUN + 3)]
        bench.add(name, np.array(rates))
    for step in AVERAGED:
        bench.add(f"average's share at step {step}", averaged(bench, step))


def averaged(bench: Workbench, step: int) -> Array:
    """The moving average's share of one step's change of the weights, with warm-up.

    The change is large, so that the average's own rounding is far below its share.
    """
    settings = bench.settings(
        train__batch_size=bench.spec.batch, train__ema_warmup=True, train__ema_rate=0.999
    )
    learner = bench.learner(settings)
    before = learner.state()
    learner.count = step - 1
    learner.step(bench.batches(settings).batch(1), 1.0)
    after, change, moved = learner.state(), 0.0, 0.0
    for name, array in after.raw.items():
        raw = array.astype(np.float64) - before.raw[name]
        change += float((raw * raw).sum())
        moved += float(((after.ema[name].astype(np.float64) - before.ema[name]) * raw).sum())
    return np.array(moved / change)


def one_update(bench: Workbench, name: str, step: int, size: float) -> dict[str, Array]:
    """Results of `adam_step` on keyed arrays; for weights and average, their changes."""
    keys = ("p", "g", "m", "v", "e")
    given = {k: {n: bench.normal(f"{name}/{k}/{n}", s) for n, s in SIZES.items()} for k in keys}
    given["g"] = {n: a * np.float32(size) for n, a in given["g"].items()}
    for k in ("p", "e"):  # small, so that their change is not lost to rounding
        given[k] = {n: a * np.float32(1e-3) for n, a in given[k].items()}
    for k in ("m", "v"):  # as after some steps; zero before the first
        given[k] = {n: a * np.float32(size * (step > 1)) for n, a in given[k].items()}
    given["v"] = {n: a * a for n, a in given["v"].items()}
    before = {k: {n: a.astype(np.float64) for n, a in given[k].items()} for k in keys}
    if bench.panel.name == REFERENCE:
        from diptych.align.reference.backend import adam

        given_all: Any = [before[k] for k in keys]
        numbers: Any = NUMBERS
        norm: Any = adam(*given_all, step=step, **numbers)
        after = before
    else:
        norm, after = on_device(bench, given, step)
    result: dict[str, Array] = {"norm": np.array(norm, dtype=np.float64)}
    for k in ("m", "v", "p", "e"):
        for n in SIZES:
            change = after[k][n].astype(np.float64)
            result[f"{k}.{n}"] = change - given[k][n] if k in "pe" else change
    return result


def on_device(bench: Workbench, given: dict[str, dict[str, Array]], step: int) -> tuple[float, Any]:
    """Run the backend's own `adam_step`; return the norm and the arrays afterwards."""
    panel = bench.panel
    groups = {k: [panel.put(a.copy()) for a in arrays.values()] for k, arrays in given.items()}
    norm = panel.part("optim").adam_step(*groups.values(), step=step, **NUMBERS)
    after = {
        k: {n: panel.read(a) for n, a in zip(SIZES, arrays, strict=True)}
        for k, arrays in groups.items()
    }
    return panel.backend.scalar(norm), after


def trace_sizes(bench: Workbench) -> None:
    """Trace the norm and the clipped gradients, at the sizes that are used."""
    table = parameter_table(bench.plan)
    used = {name: tuple(p.shape) for name, p in table.items()}
    sizes: dict[str, dict[str, tuple[int, ...]]] = {"2.4 million": MANY, "the network's": used}
    for name, shapes in sizes.items():
        given = {n: bench.normal(f"{name}/{n}", shape) for n, shape in shapes.items()}
        largest = max(shapes, key=lambda n: given[n].size)
        norm, after = clipped(bench, given, largest)
        bench.add(f"{name}/norm", np.array(norm, dtype=np.float64))
        bench.add(f"{name}/clipped", after.ravel()[:SHOWN])


def clipped(bench: Workbench, given: dict[str, Array], shown: str) -> tuple[float, Array]:
    """The norm of gradients, and one clipped gradient: with beta1 = 0 it is Adam's mean."""
    if bench.panel.name == REFERENCE:
        norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in given.values()))
        return norm, given[shown] * min(1.0, NUMBERS["max_norm"] / (norm + 1e-6))
    panel = bench.panel
    gradients = [panel.put(g.copy()) for g in given.values()]
    rest = [[panel.put(np.zeros_like(g)) for g in given.values()] for _ in range(4)]
    step = panel.part("optim").adam_step
    norm = step(rest[0], gradients, *rest[1:], step=1, **NUMBERS | {"beta1": 0.0})
    return panel.backend.scalar(norm), panel.read(rest[1][list(given).index(shown)])
