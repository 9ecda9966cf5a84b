"""Jobs of the tests of images that are no squares, which run in a panel's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from diptych import backends
from diptych.backends.protocol import Batch
from diptych.cli import cli
from diptych.config.load import Config
from diptych.network.embedding import time_embedding
from diptych.network.parameters import initial_weights
from diptych.network.plan import make_plan
from diptych.rng import stream
from diptych.training.batches import Batches


def batch_of(config: Config) -> Batch:
    """A batch of random pixels in the config's shape."""
    pixels = stream(1, "initial_noise", 0).integers(0, 256, (16, *config.data.shape))
    return Batches(config, make_plan(config), pixels.astype(np.uint8)).batch(1)


def numbers(name: str, config: Config) -> tuple[Any, float, dict[str, Any]]:
    """A fresh network's prediction, loss and gradients; `reference` is the float64 one."""
    if name == "reference":
        from diptych.align.reference.backend import ReferenceBackend

        backend: Any = ReferenceBackend()
    else:
        backend = backends.load(name, "cpu")
    plan, batch = make_plan(config), batch_of(config)
    weights = initial_weights(plan, 0)
    loss, gradients = backend.learner(plan, weights, config.train, 0).gradients(batch)
    x = backend.array(batch.x0)
    embedding = backend.array(time_embedding(batch.t, plan.ch))
    predicted = backend.predict(backend.network(plan, weights), x, embedding)
    return backend.numpy(predicted), loss, gradients


SETTINGS = [
    "model.ch=8", "model.norm_groups=4", "model.ch_mult=[1, 2]", "model.attn_resolutions=[4]",
    "train.batch_size=4", "train.grid_every=2", "train.checkpoint_every=2", "train.lr_decay=none",
    "train.lr_final=0.0",
]  # fmt: skip


def lived(name: str, pictures: Path, folder: Path) -> None:
    """A run on own pictures from its start to a report, each verb by the command line."""
    run, pieces = folder / "run", [word for each in SETTINGS for word in ("--set", each)]
    some = ["--backend", name, "--device", "cpu", "--quiet"]
    new = ["--size", "8x12", "--steps", 2, *pieces, "--no-resources"]
    shown = ["--gif", "--frames", 3, "--strip", "--nearest", "--neighbours", 1]
    for words in (
        ["train", pictures, *new, *some, "--out", run],
        ["train", "--resume", "--steps", 4, *some, "--out", run],
        ["sample", run, "--num", 3, "--steps", 3, *shown, *some, "--out", folder / "drawn"],
        ["sample", run, "--interpolate", "1,2", "--steps", 3, *some, "--out", folder / "between"],
        ["sample", run, "--from", pictures, "--num", 2, *some, "--out", folder / "begun"],
        ["encode", pictures, "--model", run, "--num", 2, "--steps", 3, *some,
         "--out", folder / "encoded"],
        ["report", run, "--out", folder / "report"],
    ):  # fmt: skip
        done = CliRunner().invoke(cli, [str(word) for word in words])
        if done.exception is not None:
            raise done.exception
