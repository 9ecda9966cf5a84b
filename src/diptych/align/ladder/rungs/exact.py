"""Rungs on which bits must be equal: config, data, weights, schedule.

Nothing here depends on rounding, so there is no tolerance: one differing bit fails. Besides the
preset's own batches the data rung makes a small colour probe (three channels, flips, labels, a
last batch that is not full), so that a grey preset finds a reversed channel order too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from diptych import rng
from diptych._version import __version__
from diptych.align.process.workbench import Desk
from diptych.backends.protocol import Batch, State
from diptych.config import load
from diptych.diffusion import schedule
from diptych.network.parameters import parameter_table
from diptych.network.plan import make_plan
from diptych.runs import checkpoint
from diptych.training import batches as data_batches

FIRST = 3  # training steps whose batches are compared
CLASSES = 10  # of the probe


def trace_config(desk: Desk) -> None:
    """Every setting, its hash, and the versions that the host's part depends on."""
    for key, value in load.flatten(desk.config).items():
        desk.note(key, value)
    desk.note("identity", desk.config.identity())
    desk.note("diptych", __version__)
    desk.note("python", list(sys.version_info[:2]))
    desk.note("numpy", np.__version__)
    desk.note("parameters", int(sum(w.size for w in desk.weights.values())))


def trace_data(desk: Desk) -> None:
    """Pixels, flips, order, timesteps, noise and masks, as they come back from the device."""
    desk.note("images from", desk.data_from)
    source = desk.batches(desk.config)
    desk.note("steps in an epoch", source.steps_per_epoch)
    for step in sorted({*range(1, FIRST + 1), source.steps_per_epoch}):
        _add_batch(desk, f"step {step}", source.batch(step))
    probe = desk.settings(
        data__channels=3, data__random_flip=True, train__batch_size=4, train__noise="host",
        model__num_classes=CLASSES, train__label_dropout=0.5,
    )  # fmt: skip
    shape = (10, 3, probe.data.image_size, probe.data.image_size)
    drawn = rng.stream(probe.seed, "initial_noise", (1 << 20) + 1).integers(0, 256, shape)
    plan, labels = make_plan(probe), np.arange(10)
    colour = data_batches.Batches(probe, plan, drawn.astype(np.uint8), labels)
    for step in range(1, 5):
        _add_batch(desk, f"colour {step}", colour.batch(step))


def _add_batch(desk: Desk, name: str, batch: Batch) -> None:
    read, put = desk.panel.read, desk.panel.put
    desk.add(f"{name}/pixels", _plain(read(put(batch.x0))))
    desk.add(f"{name}/t", batch.t)
    if batch.eps is not None:
        desk.add(f"{name}/noise", _plain(read(put(batch.eps))))
    if batch.labels is not None and batch.classes is not None:
        desk.add(f"{name}/labels", batch.labels)
        desk.add(f"{name}/classes", _plain(read(put(batch.classes))))
    for k, mask in enumerate(batch.masks or ()):
        desk.add(f"{name}/mask {k}", read(put(mask)))


def _plain(values: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The reference's float64 back as the float32 that it came from; exact."""
    return values.astype(np.float32) if values.dtype == np.float64 else values


def trace_weights(desk: Desk) -> None:
    """Weights put into a learner and read back, and once more through a checkpoint."""
    state = desk.learner().state()
    for name in parameter_table(desk.plan):
        desk.add(name, _plain(state.raw[name]))
    groups = [{n: _plain(a) for n, a in g.items()} for g in (state.raw, state.ema)]
    with TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), State(0, *groups, *groups), {}, 1)
        for group in ("raw", "ema"):
            read = checkpoint.load_weights(path, group, desk.plan)
            desk.note(f"checkpoint {group}", checkpoint.weights_sha256(read))


def trace_schedule(desk: Desk) -> None:
    """The tables in float64, what a batch takes from them, and the spacings."""
    tables = schedule.make_schedule(desk.config.diffusion)
    for name in ("beta", "alpha", "sigma"):
        desk.add(name, getattr(tables, name))
    source = desk.batches()
    batch = source.batch(1)
    for name in ("alpha", "sigma", "embedding", "weight"):
        if getattr(batch, name) is not None:
            values = desk.panel.read(desk.panel.put(getattr(batch, name)))
            desk.add(f"step 1/{name}", _plain(values))
    for spacing in schedule.SPACINGS:
        steps = min(20, tables.timesteps)
        chosen = schedule.make_spacing(spacing, steps, tables.timesteps)
        desk.add(f"spacing {spacing}", np.array(chosen, dtype=np.int64))
