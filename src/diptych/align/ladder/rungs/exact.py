"""Rungs whose bits must be equal: config, data, weights, schedule.

Nothing here depends on rounding, so there is no tolerance: one differing bit fails. In addition to
the preset's own batches, the data rung makes a small colour probe (three channels, flips, labels,
a last batch that is not full), so that a grey preset finds a reversed channel order too. Keyed
noise and masks are those that each backend drew on its own device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from diptych import __version__, rng
from diptych.align.ladder.rungs import draws
from diptych.align.process.workbench import Workbench
from diptych.backends.protocol import Batch, State
from diptych.config import load
from diptych.diffusion import objective, schedule, timesteps
from diptych.errors import UserError
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.training import batches as data_batches

FIRST = 3  # training steps whose batches are compared
CLASSES = 10  # of the probe
TRANSFORMS: dict[str, dict[str, Any]] = {
    "plain": {"data__rescaled": True, "data__logit_transform": False,
              "data__dequantization": "none"},
    "not rescaled": {"data__rescaled": False, "data__logit_transform": False,
                     "data__dequantization": "none"},
    "uniform": {"data__rescaled": True, "data__logit_transform": False,
                "data__dequantization": "uniform"},
    "logit": {"data__rescaled": False, "data__logit_transform": True,
              "data__dequantization": "uniform"},
    "gaussian": {"data__rescaled": True, "data__logit_transform": False,
                 "data__dequantization": "gaussian"},
}  # fmt: skip


def trace_config(bench: Workbench) -> None:
    """Record every setting, the config's hash, and the versions that the host depends on."""
    for key, value in load.flatten(bench.config).items():
        bench.note(key, value)
    bench.note("identity", bench.config.identity())
    bench.note("diptych", __version__)
    bench.note("python", list(sys.version_info[:2]))
    bench.note("numpy", np.__version__)
    bench.note("parameters", int(sum(w.size for w in bench.weights.values())))


def trace_data(bench: Workbench) -> None:
    """Trace pixels, flips, order, timesteps, noise and masks as the device returns them."""
    bench.note("images from", bench.data_from)
    source = bench.batches(bench.settings())
    epoch = source.steps_per_epoch
    bench.note("steps in an epoch", epoch)
    for step in sorted({*range(1, FIRST + 1), epoch, epoch + 1}):
        _add_batch(bench, f"step {step}", source.batch(step))
    probe = bench.settings(
        data__channels=3,
        data__random_flip=True,
        train__batch_size=4,
        model__num_classes=CLASSES,
        train__label_dropout=0.5,
        model__dropout=0.25,
    )
    shape = (10, *probe.data.shape)
    drawn = rng.stream(probe.seed, "initial_noise", (1 << 20) + 1).integers(0, 256, shape)
    plan, labels = make_plan(probe), np.arange(10)
    pixels = drawn.astype(np.uint8)
    colour = data_batches.Batches(probe, plan, pixels, labels)
    for step in range(1, 5):
        _add_batch(bench, f"colour {step}", colour.batch(step))
    for name, changes in TRANSFORMS.items():
        changed = bench.settings(
            data__channels=3,
            train__batch_size=4,
            model__num_classes=0,
            model__dropout=0.0,
            **changes,
        )
        source = data_batches.Batches(changed, make_plan(changed), pixels)
        bench.add(f"{name}/pixels", _plain(bench.panel.read(bench.panel.put(source.batch(2).x0))))
    draws.add_keyed(bench)


def _add_batch(bench: Workbench, name: str, batch: Batch) -> None:
    read, put = bench.panel.read, bench.panel.put
    bench.add(f"{name}/pixels", _plain(read(put(batch.x0))))
    bench.add(f"{name}/t", batch.t)
    if batch.eps is not None:
        bench.add(f"{name}/noise", _plain(read(put(batch.eps))))
    if batch.labels is not None and batch.classes is not None:
        bench.add(f"{name}/labels", batch.labels)
        bench.add(f"{name}/classes", _plain(read(put(batch.classes))))
    for k, mask in enumerate(batch.masks or ()):
        bench.add(f"{name}/mask {k}", read(put(mask)))


def _plain(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """Convert the reference's float64 back to the float32 that it came from; exact."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def trace_weights(bench: Workbench) -> None:
    """Trace weights read back from a learner, and once more through a checkpoint; an engine's from
    its graph."""
    if bench.panel.only_predicts:
        network = bench.panel.backend.network(bench.plan, bench.weights)
        for name, array in bench.panel.backend.weights(network).items():
            bench.add(name, array)
        return
    state = bench.learner().state()
    for name in parameter_table(bench.plan):
        bench.add(name, _plain(state.raw[name]))
    raw, ema = ({n: _plain(a) for n, a in g.items()} for g in (state.raw, state.ema))
    # Four groups that differ by exact factors (powers of two), so that none can be confused.
    halves = [{n: a * np.float32(k) for n, a in ema.items()} for k in (0.5, 0.25, 0.125)]
    with TemporaryDirectory() as folder:
        read = checkpoint.load_state(
            checkpoint.save(Path(folder), State(3, raw, *halves), {}, 1), bench.plan
        )
    bench.note("checkpoint step", read.step)
    for group in ("raw", "ema", "adam_m", "adam_v"):
        bench.note(f"checkpoint {group}", checkpoint.weights_sha256(getattr(read, group)))


def trace_schedule(bench: Workbench) -> None:
    """Trace the float64 tables of the config and of every form, a batch's values from them, the
    spacings and the loss weights."""
    tables = schedule.make_schedule(bench.config.diffusion)
    for name in ("beta", "alpha", "sigma"):
        bench.add(name, getattr(tables, name))
    source = bench.batches()
    batch = source.batch(1)
    for name in ("alpha", "sigma", "embedding", "weight"):
        if getattr(batch, name) is not None:
            values = bench.panel.read(bench.panel.put(getattr(batch, name)))
            bench.add(f"step 1/{name}", _plain(values))
    steps = min(20, tables.timesteps)
    for spacing in timesteps.ALL_SPACINGS:
        try:
            chosen = timesteps.choose_timesteps(spacing, steps, tables)
        except UserError as error:  # a table with too few levels for it
            bench.note(f"spacing {spacing}", str(error))
            continue
        bench.add(f"spacing {spacing}", np.array(chosen, dtype=np.int64))
    for form in schedule.SCHEDULES:
        for ends, suffix in ((False, ""), (True, ", ending in noise")):
            other = schedule.make_schedule(
                bench.settings(
                    diffusion__schedule=form,
                    diffusion__zero_terminal_snr=ends,
                    diffusion__objective="v",
                    train__weighting="none",
                ).diffusion
            )
            bench.add(f"{form}{suffix}", np.stack([other.beta, other.alpha, other.sigma]))
    for aim in ("eps", "x0", "v"):
        for gamma in (1.0, 5.0):
            table = objective.min_snr_weights(aim, tables, gamma)
            bench.add(f"weights of {aim}, gamma {gamma:g}", table)
